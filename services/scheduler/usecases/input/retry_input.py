"""The failed batches of a job as the input of another one."""

from array import array
from contextlib import aclosing
from dataclasses import dataclass

from services.scheduler.domain.model.batch import BatchState, Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.domain.partition import MAX_SEGMENT_BATCHES
from services.scheduler.usecases.input.appender import joined
from services.scheduler.usecases.input.batch_items import BatchItems
from services.scheduler.usecases.input.input_reader import UnreadableError
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore

CHUNK_BATCHES = 4096
CHUNK_BYTES = 8 * 1024 * 1024
"""What a chunk of failed batches may have: with it the memory, and the transaction, that a retry takes at a time."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a job's input, ready to be written."""

    pieces: list[Piece]
    segments: list[Segment]
    cursor: Cursor
    """Behind it."""
    unreadable: int
    """Failed batches that are left out, because their items cannot be read any more."""


async def failed_batches(ledger: Ledger, objects: ObjectStore, job: JobSpec, cursor: Cursor) -> Chunk:
    """The next failed batches of a job that is over, as the input of another job, behind that one's cursor.

    The cursor's position is the index of the first batch that may be among them. Raises `CortexError` when they cannot
    be read just now.
    """
    first = int(cursor.position or 0)
    failed = await ledger.outcomes(job.job_id, first, state=BatchState.FAILED, limit=CHUNK_BATCHES)
    ranges: list[bytes] = []
    unreadable = size = 0
    items = BatchItems(ledger, objects, job)
    async with aclosing(items.ranges([outcome.index for outcome in failed])) as found:
        async for index, read in found:
            if not isinstance(read, UnreadableError):
                ranges.append(read)
                size += len(read)
            elif read.lost:
                unreadable += 1
            else:
                raise read
            first = index + 1
            if size >= CHUNK_BYTES:
                break
    done = len(ranges) + unreadable == len(failed) < CHUNK_BATCHES
    end = Cursor(cursor.next_index + len(ranges), cursor.offset + size, done, str(first))
    segments = _segments(cursor, array("I", map(len, ranges)))
    return Chunk(joined(ranges), segments, end, unreadable)


def _segments(cursor: Cursor, lengths: "array[int]") -> list[Segment]:
    segments = []
    start = cursor.offset
    for first in range(0, len(lengths), MAX_SEGMENT_BATCHES):
        some = lengths[first : first + MAX_SEGMENT_BATCHES]
        segments.append(Segment(cursor.next_index + first, start, some))
        start += sum(some)
    return segments
