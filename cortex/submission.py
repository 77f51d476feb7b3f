"""Making the body of a submission without touching a byte of its items.

Items and `config` reach the container as they were written (`1.0`, `1e400`, `12345678901234567890`, key order), so they
are checked here but never decoded and encoded again: the body is put together from pieces of text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cortex.exceptions import CortexException

MAX_BYTES = 10 * 1024 * 1024
"""The server's limit for a submission that is not streamed."""

INVALID_ITEMS = "client.invalid_items"


@dataclass(frozen=True)
class Submission:
    """A job to be submitted, without its API."""

    fields: Mapping[str, object]
    """Its fields by name, such as `workers` and `timeout`; None means not given."""
    config: bytes | None = None
    """A JSON value as text."""
    items: bytes | None = None
    """A JSON array as text; the input, unless a field or a stream is."""
    batch_size: int | None = None
    """Of `items`, or of a stream."""

    def body(self) -> bytes:
        """The request's body. Raises `CortexException` when it is larger than any server takes."""
        members = self._members()
        if self.items is not None:
            item_list = [_member("items", self.items)]
            if self.batch_size is not None:
                item_list.append(_member("batch_size", encode_value("batch_size", self.batch_size)))
            members.append(_member("item_list", _object(item_list)))
        body = _object(members)
        if len(body) > MAX_BYTES:
            raise CortexException(
                "client.submission_too_large",
                f"the submission is {len(body) / 2**20:.1f} MiB and may be at most {MAX_BYTES // 2**20} MiB: "
                "stream the items, or name files that hold them",
            )
        return body

    def head(self) -> bytes:
        """The first line of a stream, which says all but the items."""
        line = _object([*self._members(), _member("batch_size", encode_value("batch_size", self.batch_size))])
        # `config` may span lines. What ends a line is space between JSON's words: within a string it is escaped.
        return line.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"

    def _members(self) -> list[bytes]:
        given = {name: value for name, value in self.fields.items() if value is not None}
        members = [_member(name, encode_value(name, value)) for name, value in given.items()]
        return members if self.config is None else [*members, _member("config", self.config)]


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name).encode() + b":" + value


def _object(members: list[bytes]) -> bytes:
    return b"{" + b",".join(members) + b"}"


def encode_items(items: Iterable[Any]) -> bytes:
    """Python values as a JSON array. Raises `CortexException` naming the first that JSON cannot hold."""
    return b"[" + b",".join(_encoded(items)) + b"]"


def encode_lines(items: Iterable[Any]) -> Iterator[bytes]:
    """Python values as lines, each made when it is asked for. Raises like `encode_items`."""
    return (item + b"\n" for item in _encoded(items))


def _encoded(items: Iterable[Any]) -> Iterator[bytes]:
    for index, item in enumerate(items):
        try:
            encoded = json.dumps(item, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise CortexException(INVALID_ITEMS, f"items[{index}] cannot be written as JSON: {error}") from error
        yield encoded.encode()


def encode_value(name: str, value: Any) -> bytes:
    """A Python value as JSON. Raises `CortexException` with its name."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CortexException(f"client.invalid_{name}", f"{name} cannot be written as JSON: {error}") from error


def read_items(text: bytes, source: str) -> bytes:
    """Raw text as a JSON array of items: it is one, or it holds one item a line.

    An array alone is the array of the items. Anything else is read as lines; empty lines count for nothing. `source` is
    the text's name in messages. Raises `CortexException` (`client.invalid_items`) with the line of a mistake, and when
    there is no item.
    """
    array = _as_array(text, source)
    if not array[1:-1].strip():
        raise _invalid(source, "no items: give a JSON array of at least one, or one item a line")
    return array


def _as_array(text: bytes, source: str) -> bytes:
    text = text.removeprefix(b"\xef\xbb\xbf")
    if not text.lstrip().startswith(b"["):
        return _join_lines(text, source)
    try:
        check_json(text)
    except _NotJsonError as mistake:
        if b"\n" not in text.strip() or not is_json(text.lstrip().split(b"\n", 1)[0]):
            raise _invalid(source, f"{mistake.where}not a JSON array of items: {mistake}") from mistake
        return _join_lines(text, source)
    return text.strip()


def read_value(name: str, text: bytes) -> bytes:
    """Raw text that is a JSON value. Raises `CortexException` with its name."""
    try:
        check_json(text)
    except _NotJsonError as mistake:
        raise CortexException(f"client.invalid_{name}", f"{name}: {mistake.where}not JSON: {mistake}") from mistake
    return text.strip()


def _join_lines(text: bytes, source: str) -> bytes:
    items = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        item = line.strip()
        if not item:
            continue
        try:
            check_json(item)
        except _NotJsonError as mistake:
            hint = "give a JSON array, or one item a line"
            raise _invalid(source, f"line {number} is not a JSON value: {mistake} ({hint})") from mistake
        items.append(item)
    return b"[" + b",".join(items) + b"]"


def _invalid(source: str, message: str) -> CortexException:
    return CortexException(INVALID_ITEMS, f"{source}: {message}")


class _NotJsonError(Exception):
    """Why a text is not JSON; `where` names its line where there are several."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJsonError(f"{name} is not JSON")


# Numbers stay text: nobody wants their value, and Python refuses integers of over 4300 digits.
_CHECKER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


def check_json(text: bytes) -> None:
    """Raises `_NotJsonError` unless the text is one JSON value."""
    try:
        _CHECKER.decode(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _NotJsonError(f"byte {error.start} is not UTF-8", f"line {line}: " if line > 1 else "") from error
    except json.JSONDecodeError as error:
        several = f"line {error.lineno}: " if b"\n" in text.strip() else ""
        raise _NotJsonError(f"{error.msg.lower()} at column {error.colno}", several) from error
    except RecursionError as error:
        raise _NotJsonError("it is nested too deep") from error


def is_json(text: bytes) -> bool:
    """Whether the text is one JSON value."""
    try:
        check_json(text.strip())
    except _NotJsonError:
        return False
    return True
