"""A job's batches.

A batch is a range of the job's item stream, so that items are written once and the ledger holds a few bytes a batch. A
`Segment` describes consecutive batches.
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive batches as consecutive ranges of the item stream.

    Batch `first_index + i` is the range of `lengths[i]` bytes that follows the ranges before it; `start` is where the
    first begins. A range ends with its last item's comma.
    """

    first_index: int
    start: int
    lengths: "array[int]"  # in quotes: array takes no parameters at run time before Python 3.12
    """Unsigned 32-bit (`array("I")`)."""

    def range_of(self, index: int) -> tuple[int, int]:
        """Where in the item stream one of its batches begins and ends."""
        position = index - self.first_index
        start = self.start + sum(self.lengths[:position])
        return start, start + self.lengths[position]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where splitting goes on: the state of the partitioner after the segments that are on disk."""

    next_index: int = 0
    """Batches that there are."""
    offset: int = 0
    """Bytes of the item stream that are in batches."""
    done: bool = False
    """The input is split to its end."""
    position: str = ""
    """Where in its source the item stream on disk ends; the source knows what it means."""


class BatchState(Enum):
    """Where a batch is."""

    PENDING = "pending"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SPLIT = "split"  # it kept failing and was halved: its items are in two other batches


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Outcome:
    """A batch's end. Recorded once; the first one stands."""

    index: int
    state: BatchState
    """SUCCEEDED, FAILED or SPLIT."""
    attempts: int
    """Deliveries it took, lost workers not counted."""
    http_status: int
    """Of the last attempt; 0 when there was no answer."""
    error: str
    """Of the last attempt, for people; `""` after success."""
    ended_ns: int
    reply: bytes | None = None
    """What the container answered, where that is kept and asked for."""


@dataclass(frozen=True, slots=True)
class Halves:
    """A batch that kept failing, as two ranges of the item stream."""

    index: int
    start: int
    lengths: tuple[int, int]


@dataclass(frozen=True, slots=True)
class History:
    """What an open batch has been through; kept on disk so that a restart does not forget it."""

    attempts: int = 0
    """Attempts that failed."""
    losses: int = 0
    """Workers lost with it."""
    epoch: int = 0
    """Of the lease that brought the last of these: what it and those before it brought is counted."""
    http_status: int = 0
    """Of the last attempt that failed; 0 when there was no answer."""
    error: str = ""
    """What went wrong last, for people."""
    given_up: bool = False
    """It is not delivered any more: its end is being prepared."""


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """The batches that are not final, as found in the ledger at a restart."""

    holes: list[int] = field(default_factory=list)
    """Below `next_index` and without an outcome, ascending."""
    next_index: int = 0
    """No batch from here on has an outcome."""
    histories: dict[int, History] = field(default_factory=dict)
