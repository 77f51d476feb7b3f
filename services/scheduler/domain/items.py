"""Reading `item_list.items`: a JSON array as text becomes pieces of the item stream, checked to its end.

The text is looked at in windows, so that memory stays near the text and the stream, however small the items are. A
window ends at a comma that was guessed to stand between two items. The guess is proved by reading: `[`, a beginning
of the array's inside and `]` are JSON only if that beginning ended outside of all strings, arrays and objects.
Where the guesses are wrong the window grows.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NoReturn

import msgspec

from services.common import json_text
from services.common.errors import Category, CortexError
from services.common.names import MAX_ITEM_BYTES, MAX_JSON_DEPTH
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.partition import Partitioner

PIECE_BYTES = 256 * 1024
"""A piece is at most this long."""

WINDOW_BYTES = 256 * 1024

MAX_ITEM_DEPTH = MAX_JSON_DEPTH - 3
"""The limit counts from the request's outermost brace: an item stands in the request, in `item_list`, in `items`."""

_PLACE = "item_list.items"
_TAIL_BYTES = 4 * 1024
_BETWEEN = re.compile(rb"[\]}][ \t\r\n]*+(,)[ \t\r\n]*+[\[{]")
_SUSPICIOUS_BYTES = 2 * (MAX_ITEM_DEPTH + 1)
"""An item that is shorter cannot be nested too deep."""


def read_items(text: str | bytes, batch_size: int) -> list[bytes]:
    """The item stream of a job, in pieces of at most PIECE_BYTES that end where items end.

    Raises `CortexError`: `json.malformed` (also for what is nested too deep), `configreader.invalid_primitive_type`
    (no array), `configreader.too_few_elements`, `batchapi.item_size_exceeds_limit`,
    `batchapi.message_exceeds_max_size`.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    try:
        json_text.check_utf8(data, _PLACE)
        pieces = _read(data, batch_size) if data.strip(json_text.WHITE_SPACE) else []  # not given
    except RecursionError as error:
        raise _too_deep(_PLACE) from error
    if not pieces:
        raise CortexError("configreader.too_few_elements", f"{_PLACE}: the list is empty; give at least one item")
    return pieces


def _read(data: bytes, batch_size: int) -> list[bytes]:
    partitioner = Partitioner(batch_size, Cursor())  # for its checks
    pieces: list[bytes] = []
    first_index = 0
    for text, items in _windows(data):
        lengths = [len(item) + 1 for item in items]
        _check_items(first_index, items, lengths)
        first_index += len(items)
        partitioner.feed_lengths(lengths)
        as_it_is = sum(lengths) == len(text) + 1  # no white space around items
        stream = text + b"," if as_it_is else json_text.unmasked(b",".join((*items, b"")))
        pieces.extend(_pieces(stream, lengths))
    return pieces


def _windows(data: bytes) -> Iterator[tuple[bytes, list[msgspec.Raw]]]:
    """Windows of the array's inside, with their items."""
    start = len(data) - len(data.lstrip(json_text.WHITE_SPACE)) + 1
    if data[start - 1 : start] != b"[":
        _refuse(data)
    first = start
    size = WINDOW_BYTES
    while start + size < len(data):
        size *= 2  # unless one of the guesses is right
        for comma in _guesses(data, start, start + size // 2):
            text = data[start:comma]
            if items := _try(text + b"]"):
                yield text, items
                start = comma + 1
                size = WINDOW_BYTES
                break
    text = data[start:]
    items = _try(text)
    if items is None or (not items and start > first):  # nothing behind a comma
        _refuse(data)
    yield text, items


def _guesses(data: bytes, start: int, target: int) -> Iterator[int]:
    """Commas before the target that may stand between two items, the likeliest first."""
    tail = max(start, target - _TAIL_BYTES)
    between = [match.start(1) for match in _BETWEEN.finditer(data, tail, target)]
    yield from reversed(between[-2:])
    if (comma := data.rfind(b",", start, target)) >= 0:
        yield comma


def _try(behind_bracket: bytes) -> list[msgspec.Raw] | None:
    """The items, or None when this is not the inside of an array and its end."""
    try:
        return json_text.elements(b"[" + behind_bracket)
    except msgspec.DecodeError:
        return None


def _check_items(first_index: int, items: Sequence[msgspec.Raw], lengths: Sequence[int]) -> None:
    """Lengths are with their commas."""
    if max(lengths, default=0) < _SUSPICIOUS_BYTES:
        return
    for index, length in enumerate(lengths):
        if length > MAX_ITEM_BYTES:
            raise CortexError(
                "batchapi.item_size_exceeds_limit",
                f"{_PLACE}[{first_index + index}] has {length - 1:,} bytes; an item must be smaller than"
                f" {MAX_ITEM_BYTES:,} bytes: keep large data in files and submit their paths",
                Category.TOO_LARGE,
            )
        if length >= _SUSPICIOUS_BYTES and json_text.nested_deeper(bytes(items[index]), MAX_ITEM_DEPTH):
            raise _too_deep(f"{_PLACE}[{first_index + index}]")


def _pieces(stream: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    ends = list(accumulate(lengths))
    start = 0
    while start < len(stream):
        end = ends[bisect_right(ends, start + PIECE_BYTES) - 1]
        yield stream[start:end]
        start = end


def _too_deep(place: str) -> CortexError:
    text = f"{place} is nested deeper than {MAX_JSON_DEPTH} arrays and objects, counted from the start of the request"
    return CortexError(json_text.MALFORMED, text)


def _refuse(data: bytes) -> NoReturn:
    json_text.check_array(data, _PLACE)
    raise AssertionError("an array without mistakes has been read")
