"""Cutting an item stream into batches, as it comes.

The item stream is every item's JSON followed by a comma. It comes in pieces, which end where an item ends. A batch is
`batch_size` items, so a range of the stream; batches run on from piece to piece. What a partitioner has to remember
is how many items, and bytes, of the batch under way it has seen: memory is that of one piece.

A cursor stands between two batches. A partitioner that starts from it, and is fed the stream from `cursor.offset`,
makes the batches that the first one would have made.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import sub

from services.common.errors import Category, CortexError
from services.common.json_text import elements
from services.common.names import MAX_ITEM_BYTES
from services.scheduler.domain.model.batch import Cursor, Segment

MAX_SEGMENT_BATCHES = 256


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A batch that is not full yet."""

    items: int = 0
    size: int = 0
    """Bytes."""


class Partitioner:
    """Makes segments of batches. Feed it the stream from the cursor's offset on, or from behind what is under way."""

    def __init__(self, batch_size: int, cursor: Cursor, under_way: UnderWay = UnderWay()) -> None:  # it is frozen
        self._batch_size = batch_size
        self._cursor = cursor
        self._items = under_way.items
        self._bytes = under_way.size

    @property
    def under_way(self) -> UnderWay:
        """What the next batch has so far."""
        return UnderWay(self._items, self._bytes)

    @property
    def cursor(self) -> Cursor:
        """Where splitting goes on once the segments that were returned are on disk."""
        return self._cursor

    def feed(self, piece: bytes) -> list[Segment]:
        """The batches that end in this piece.

        Raises `CortexError` (`batchapi.message_exceeds_max_size`) when a batch is too large.
        """
        return self.feed_lengths(item_lengths(piece))

    def feed_lengths(self, lengths: Sequence[int]) -> list[Segment]:
        """The same, for items of which the lengths are known, commas included."""
        ends = list(accumulate(lengths, initial=0))
        boundaries = ends[self._batch_size - self._items :: self._batch_size]
        batches = array("I", map(sub, boundaries, chain((-self._bytes,), boundaries)))
        self._items += len(lengths) - len(boundaries) * self._batch_size
        self._bytes = ends[-1] - (boundaries[-1] if boundaries else -self._bytes)
        _check_sizes(self._cursor.next_index, batches)
        _check_sizes(self._cursor.next_index + len(batches), (self._bytes,))
        return self._advance(batches, done=False)

    def finish(self) -> list[Segment]:
        """The stream has ended: the last batch, if it is shorter than the others."""
        rest = array("I", (self._bytes,) if self._items else ())
        self._items = self._bytes = 0
        return self._advance(rest, done=True)

    def _advance(self, batches: "array[int]", *, done: bool) -> list[Segment]:
        segments = []
        index, offset = self._cursor.next_index, self._cursor.offset
        for first in range(0, len(batches), MAX_SEGMENT_BATCHES):
            lengths = batches[first : first + MAX_SEGMENT_BATCHES]
            segments.append(Segment(index, offset, lengths))
            index += len(lengths)
            offset += sum(lengths)
        self._cursor = Cursor(index, offset, done)
        return segments


def item_lengths(piece: bytes) -> list[int]:
    """Lengths of the items in a piece of the item stream, commas included. Their sum is the piece's length."""
    return [len(item) + 1 for item in elements(payload(piece))] if piece else []


def payload(items: bytes | memoryview) -> bytes:
    """The JSON array that a range of the item stream stands for: a batch as containers get it."""
    return b"".join((b"[", memoryview(items)[:-1], b"]"))


def _check_sizes(first_index: int, batches: Sequence[int]) -> None:
    """A batch as an array is a byte longer than its range: two brackets more, one comma less."""
    if max(batches, default=0) + 1 < MAX_ITEM_BYTES:
        return
    position = next(i for i, length in enumerate(batches) if length + 1 >= MAX_ITEM_BYTES)
    raise CortexError(
        "batchapi.message_exceeds_max_size",
        f"batch {first_index + position} (counted from 0) has {batches[position] + 1:,} bytes or more;"
        f" a batch must be smaller than {MAX_ITEM_BYTES:,} bytes: choose a smaller batch_size",
        Category.TOO_LARGE,
    )
