"""Batches read back from where they lie: to show them, and to make failed ones the input of another job."""

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate

from services.scheduler.domain.items import PIECE_BYTES
from services.scheduler.domain.model import BatchState, Cursor, Segment
from services.scheduler.domain.partition import MAX_SEGMENT_BATCHES
from services.scheduler.usecases.ports import Ledger

RANGE_BYTES = 1024 * 1024
"""Read at once, unless a single batch is larger."""
GAP_BYTES = 16 * 1024
"""Read and thrown away, rather than to read twice."""
CHUNK_BATCHES = 4096
CHUNK_BYTES = 8 * 1024 * 1024
"""What a chunk of failed batches may have: with it the memory, and the transaction, that a retry takes at a time."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a job's input, ready to be written."""

    pieces: list[bytes]
    segments: list[Segment]
    cursor: Cursor
    """Behind it."""


async def item_ranges(ledger: Ledger, job_id: str, indexes: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
    """Batches (ascending) as ranges of the item stream. Neighbours are read together."""
    position = 0
    while position < len(indexes):
        segment = (await ledger.segments(job_id, indexes[position], 1))[0]
        starts = list(accumulate(segment.lengths, initial=segment.start))
        while position < len(indexes) and indexes[position] - segment.first_index < len(segment.lengths):
            places = [indexes[position] - segment.first_index]
            start = starts[places[0]]
            for index in indexes[position + 1 : position + len(segment.lengths)]:
                place = index - segment.first_index
                if place >= len(segment.lengths) or starts[place] - starts[places[-1] + 1] > GAP_BYTES:
                    break
                if starts[place + 1] - start > RANGE_BYTES:
                    break
                places.append(place)
            position += len(places)
            data = await ledger.read_input(job_id, start, starts[places[-1] + 1])
            for place in places:
                yield segment.first_index + place, data[starts[place] - start : starts[place + 1] - start]


async def failed_batches(ledger: Ledger, job_id: str, cursor: Cursor) -> Chunk:
    """The next failed batches of a job that is over, as the input of another job, behind that one's cursor.

    The cursor's position is the index of the first batch that may be among them.
    """
    first = int(cursor.position or 0)
    failed = await ledger.outcomes(job_id, first, state=BatchState.FAILED, limit=CHUNK_BATCHES)
    ranges: list[bytes] = []
    size = 0
    async with aclosing(item_ranges(ledger, job_id, [outcome.index for outcome in failed])) as found:  # type: ignore[type-var]  # it is a generator
        async for index, items in found:
            ranges.append(items)
            size += len(items)
            first = index + 1
            if size >= CHUNK_BYTES:
                break
    done = len(ranges) == len(failed) < CHUNK_BATCHES
    end = Cursor(cursor.next_index + len(ranges), cursor.offset + size, done, str(first))
    return Chunk(_pieces(ranges), _segments(cursor, array("I", map(len, ranges))), end)


def _pieces(ranges: Sequence[bytes]) -> list[bytes]:
    pieces: list[bytes] = []
    gathered: list[bytes] = []
    size = 0
    for items in ranges:
        if gathered and size + len(items) > PIECE_BYTES:
            pieces.append(b"".join(gathered))
            gathered, size = [], 0
        gathered.append(items)
        size += len(items)
    return [*pieces, b"".join(gathered)] if gathered else pieces


def _segments(cursor: Cursor, lengths: "array[int]") -> list[Segment]:
    segments = []
    start = cursor.offset
    for first in range(0, len(lengths), MAX_SEGMENT_BATCHES):
        some = lengths[first : first + MAX_SEGMENT_BATCHES]
        segments.append(Segment(cursor.next_index + first, start, some))
        start += sum(some)
    return segments
