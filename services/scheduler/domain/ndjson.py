"""Splitting a file of JSON values, one a line, into the item stream, chunk by chunk.

Values may span lines, several may stand on a line, and they may touch each other where it is clear where one ends
(`{}{}`): all that Cortex accepted, whose reader was Go's `json.Decoder`, except for numbers such as `01`, which it took
for two items. Carriage returns, blank lines, white space around values and a byte order mark are left out; inside of a
value every byte stays.

The quick way takes all complete lines of a chunk at once; one call finds the values. If their item stream is the text
with commas for line feeds, then the text is one value a line and nothing else. Such a piece is *plain*, and need not be
stored. Where the quick way finds anything it does not like the slow way takes value by value; it alone decides what is
a mistake, so that what comes out does not depend on where chunks begin and end.

Memory is that of a chunk, what was found in it, and an item.
"""

import re
from dataclasses import dataclass
from itertools import repeat
from operator import add
from typing import NoReturn

import msgspec

from services.common import json_text
from services.common.errors import CortexError
from services.common.names import MAX_ITEM_BYTES, MAX_JSON_DEPTH

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WINDOW_BYTES = 64 * 1024
"""What is looked at at once: as much as stays in the processor's cache."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_SUSPICIOUS_BYTES = 2 * (MAX_JSON_DEPTH + 1)
"""An item that is shorter cannot be nested too deep."""


@dataclass(frozen=True, slots=True)
class SplitPiece:
    """A part of the item stream, and the range of the file that it was made from."""

    data: bytes
    """The item stream: every item with a comma behind it."""
    lengths: list[int]
    """Of the items in `data`, commas included."""
    plain: bool
    """Whether `data` is the range with every line feed as a comma. Where a file's last line has no line feed, `data` is
    one comma longer than the range, which then ends with the file."""
    start: int
    end: int
    """Bytes of the file. Between two pieces there is at most white space."""
    line: int
    item: int
    """What a `Splitter` has to be told to go on at `end`."""


class Splitter:
    """Splits one file. Feed it the file's bytes in order, from `offset` on, and finish."""

    def __init__(self, uri: str, *, is_stream: bool = False, offset: int = 0, line: int = 1, item: int = 1) -> None:
        """`uri` is the input's name in messages, which speak of a file, or of a stream."""
        self._uri = uri
        self._is_stream = is_stream
        self._offset = offset  # of `_pending` in the file
        self._line = line  # in which `_pending` begins
        self._item = item  # the number of the next item, from 1
        self._pending = b""

    def feed(self, chunk: bytes) -> list[SplitPiece]:
        """What is complete with this chunk, in pieces that are not much longer than an item may be.

        Raises `CortexError` with the file, the line and the item's number: `json.malformed` (also for what is not UTF-8
        or is nested too deep) or `batchapi.item_size_exceeds_limit`. Nothing can be fed after that.
        """
        windows = (chunk[start : start + _WINDOW_BYTES] for start in range(0, len(chunk), _WINDOW_BYTES))
        return [piece for window in windows if (piece := self._feed(window))]

    def finish(self) -> list[SplitPiece]:
        """The file has ended. Raises as `feed` does."""
        piece = self._values(at_end=True)
        return [piece] if piece else []

    def _feed(self, window: bytes) -> SplitPiece | None:
        self._pending += window
        if self._offset == 0 and not self._past_mark():
            return None
        end = self._pending.rfind(b"\n") + 1
        if end == 0 and len(self._pending) <= MAX_ITEM_BYTES:
            return None
        return self._lines(end) or self._values(at_end=False)

    def _past_mark(self) -> bool:
        """Skip a byte order mark. False while it is not known whether there is one."""
        if self._pending.startswith(_BYTE_ORDER_MARK):
            self._take(len(_BYTE_ORDER_MARK), 0)
            return True
        return not _BYTE_ORDER_MARK.startswith(self._pending)

    def _lines(self, end: int) -> SplitPiece | None:
        """The quick way: the values up to `end`, or None when the slow way has to look."""
        text = self._pending[:end]
        try:
            items = json_text.values(text)
        except (msgspec.DecodeError, RecursionError):
            return None
        lengths = [*map(add, map(len, items), repeat(1))]  # the fastest of the ways to write this
        if not items or not _is_utf8(text):
            return None
        if max(lengths) > _SUSPICIOUS_BYTES and not all(_is_small(item) or _is_fine(bytes(item)) for item in items):
            return None
        data = b",".join((*items, b""))
        return self._piece(data, lengths, data == text.replace(b"\n", b","), 0, end)

    def _values(self, *, at_end: bool) -> SplitPiece | None:
        """The slow way: value by value, as far as they are complete."""
        text = self._pending
        masked = json_text.masked(text)
        readings = (text,) if masked is text else (text, masked)
        found: list[bytes] = []
        first = start = end = _skip_space(text, 0)
        while start < len(text):
            stop = self._value_end(readings, start, len(found))
            if stop is None and at_end:
                self._refuse(start, len(found), json_text.NotJson(f"the {self._what} ends in the middle of it", 0))
            if stop is None or (stop == len(text) and not at_end):  # a number may go on, and a line feed may follow
                break
            found.append(self._checked(text[start:stop], start, len(found)))
            end = stop
            start = _skip_space(text, end)
        if not found:
            self._take(first, 0)
            return None
        if text[end : end + 1] == b"\n":
            end += 1
        data = b",".join((*found, b""))
        replaced = text[first:end].replace(b"\n", b",")
        plain = data == replaced or (at_end and end == len(text) and data == replaced + b",")
        return self._piece(data, [len(item) + 1 for item in found], plain, first, end)

    def _value_end(self, readings: tuple[bytes, ...], start: int, found: int) -> int | None:
        """Where the value ends that begins here; None while that is not known."""
        stop = start + MAX_ITEM_BYTES + 1
        try:
            length = _first_length([memoryview(text)[start:stop] for text in readings])
        except json_text.NotJson as finding:
            self._refuse(start, found, finding)
        except RecursionError:
            json_text.check_depth(self._pending[start:stop], self._place(start, found))
            self._refuse(start, found, json_text.NotJson("it is nested too deep to be read", 0))
        if length is None and len(self._pending) < stop:
            return None
        if length is None or length >= MAX_ITEM_BYTES:
            size = f"{length:,} bytes" if length else f"{MAX_ITEM_BYTES:,} bytes or more"
            raise CortexError(
                "batchapi.item_size_exceeds_limit",
                f"{self._place(start, found)} has {size}; an item must be smaller than {MAX_ITEM_BYTES:,} bytes:"
                " keep large data in files of their own and list their paths with file_path_lister",
            )
        return start + length

    def _checked(self, item: bytes, start: int, found: int) -> bytes:
        if not _is_fine(item):
            place = self._place(start, found)
            json_text.check_utf8(item, place)
            json_text.check_depth(item, place)
        return item

    def _refuse(self, start: int, found: int, finding: json_text.NotJson) -> NoReturn:
        position = start + finding.offset
        near = self._pending[position : position + 1].decode("ascii", "replace")
        # What a client sent before a stream's first item is not known here.
        byte = "" if self._is_stream else f" (byte {self._offset + position:,} of the file)"
        raise CortexError(
            json_text.MALFORMED,
            f"{self._place(position, found)} is not valid JSON: {finding.what}, at {near!r}{byte};"
            f" a {self._what} of items is JSON values, one a line",
        )

    @property
    def _what(self) -> str:
        return "stream" if self._is_stream else "file"

    def _place(self, position: int, found: int) -> str:
        line = self._line + self._pending.count(b"\n", 0, position)
        return f"{self._uri}, line {line}, item {self._item + found}"

    def _piece(self, data: bytes, lengths: list[int], plain: bool, start: int, end: int) -> SplitPiece:
        begins = self._offset + start
        lines = len(lengths) if plain and start == 0 and self._pending[end - 1 : end] == b"\n" else None
        self._take(end, len(lengths), lines)
        return SplitPiece(data, lengths, plain, begins, self._offset, self._line, self._item)

    def _take(self, end: int, items: int, lines: int | None = None) -> None:
        """The pending bytes up to `end` are done with."""
        self._offset += end
        self._line += self._pending.count(b"\n", 0, end) if lines is None else lines
        self._item += items
        self._pending = self._pending[end:]


def _first_length(readings: list[memoryview]) -> int | None:
    *others, last = readings
    for text in others:
        try:
            if (length := json_text.value_end(text)) is not None:
                return length
        except json_text.NotJson:
            continue  # the next reading tells whether that is so
    return json_text.value_end(last)


def _skip_space(text: bytes, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _is_small(item: msgspec.Raw) -> bool:
    return len(item) < _SUSPICIOUS_BYTES


def _is_fine(item: bytes) -> bool:
    return len(item) < MAX_ITEM_BYTES and _is_utf8(item) and not json_text.nested_deeper(item, MAX_JSON_DEPTH)


def _is_utf8(text: bytes) -> bool:
    try:
        json_text.check_utf8(text, "")
    except CortexError:
        return False
    return True
