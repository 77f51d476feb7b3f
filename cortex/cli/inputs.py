"""What `cortex submit` reads: files, or standard input."""

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cortex.exceptions import CortexException
from cortex.submission import INVALID_ITEMS, MAX_BYTES, is_json

PIECE_BYTES = 1 << 16
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """Something that can be read once."""

    name: str
    """For messages."""
    file: IO[bytes]
    size: int | None
    """Bytes, where that is known."""

    def beginning(self) -> bytes:
        """All that is there if that fits into one request, else more than fits."""
        with _told(self.name):
            return self.file.read(MAX_BYTES + 1)

    def whole(self) -> bytes:
        """All that is there. Raises `CortexException` for more than fits into one request."""
        text = self.beginning()
        if len(text) > MAX_BYTES:
            limit = f"{MAX_BYTES // 2**20} MiB, the most that one request takes"
            raise CortexException("client.submission_too_large", f"{self.name} is larger than {limit}")
        return text

    def pieces(self) -> Iterator[bytes]:
        """What is still there, as it comes."""
        with _told(self.name):
            while piece := self.file.read1(PIECE_BYTES):  # type: ignore[attr-defined]  # IO stands for BufferedReader
                yield piece


@contextlib.contextmanager
def opened(name: str) -> Iterator[Source]:
    """A file, or standard input for `-`. Raises `CortexException` when it cannot be read."""
    if name == "-":
        if sys.stdin is None:  # closed by whoever started us
            raise CortexException("client.file_not_readable", "standard input is closed: give a FILE")
        yield Source("standard input", sys.stdin.buffer, _size(sys.stdin.buffer))
        return
    with contextlib.ExitStack() as closing:
        with _told(name):
            file = closing.enter_context(Path(name).open("rb"))
        yield Source(name, file, _size(file))


def read_whole(name: str) -> bytes:
    """All of it. Raises `CortexException` for more than fits into one request."""
    with opened(name) as source:
        return source.whole()


def read_submission(name: str) -> bytes:
    """A whole submission: JSON as it is, YAML turned into JSON."""
    text = read_whole(name)
    return text.strip() if is_json(text) else _from_yaml(text, name)


def _from_yaml(text: bytes, name: str) -> bytes:
    import yaml

    class Loader(yaml.SafeLoader):
        """As YAML 1.2 has it: `on` is no truth but a field of `retries`, and there are no dates, as in JSON."""

    truth, time = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (truth, time)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(truth, re.compile("^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
    try:
        return json.dumps(yaml.load(text, Loader), allow_nan=False).encode()  # noqa: S506  # it is a safe one
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        message = f"{name} is not a submission in JSON or YAML: {error}"
        raise CortexException("client.invalid_job", message) from error


def check_lines(beginning: bytes, source: Source) -> None:
    """Raises `CortexException` for a JSON array that is too large for one request: only lines can be streamed."""
    first_line, _, _ = beginning.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    if first_line.startswith(b"[") and not is_json(first_line):
        raise CortexException(
            INVALID_ITEMS,
            f"{source.name} is a JSON array of more than {MAX_BYTES // 2**20} MiB: write its items one a line, "
            "such as with `jq -c '.[]'`; lines may be any number",
        )


def _size(file: IO[bytes]) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no file at all
        found = os.fstat(file.fileno())
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CortexException("client.file_not_readable", f"cannot read {name}: {error.strerror}") from error
