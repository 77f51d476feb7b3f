"""What a client sends to a running job, on its way into the job's input.

One side is the client's stream: it puts items in, waits while too many of them are not on disk yet, and in the end says
that these were all, or that it broke off. The other side is the job's input, to which this is a source of items. A
restart of the scheduler ends the stream, and with it the job.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from services.common.errors import Category, CortexError
from services.scheduler.usecases.input.source import Part

MAX_WAITING_BYTES = 1024 * 1024
"""Of items that are not on disk yet."""

BROKEN_OFF = "job.stream_broken_off"


class _StreamPosition(msgspec.Struct, frozen=True):
    """How much of a stream has come."""

    items: int = 0


def items_of(position: bytes) -> int:
    """How many items a position stands behind."""
    return msgspec.json.decode(position, type=_StreamPosition).items if position else 0


class StreamSource:
    """The items of one stream."""

    stores = True

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self._sizes: deque[tuple[int, int]] = deque()  # of parts not on disk: the items up to each one's end, its bytes
        self._waiting_bytes = 0
        self._put = 0
        self._finished = False
        self._broken: str | None = None
        self._refusal: CortexError | None = None
        self._to_take = asyncio.Event()
        self._progress = asyncio.Event()
        self.digest = b""
        """Of the whole stream, once it is finished."""
        self.durable = 0
        """Items that are on disk."""
        self.complete = False
        """Whether all of them are, and the job knows that there are no more."""

    # The client's side. Raises what `close` was told.

    async def put(self, data: bytes, lengths: list[int]) -> None:
        """Take a piece of the item stream, and wait while too much is not on disk."""
        self._put += len(lengths)
        self._parts.append(Part([data], lengths, msgspec.json.encode(_StreamPosition(self._put))))
        self._sizes.append((self._put, len(data)))
        self._waiting_bytes += len(data)
        self._to_take.set()
        while self._refusal is None and self._waiting_bytes > MAX_WAITING_BYTES:
            self._progress.clear()
            await self._progress.wait()
        self._check()

    def finish(self, digest: bytes) -> None:
        """These were all items. Raises `CortexError` when there was none: the job ends for that."""
        self.digest = digest
        self._finished = True
        self._to_take.set()
        if not self._put:
            raise CortexError("job.no_data_found_in_job_submission", "there are no items: the stream is empty")

    def break_off(self, why: str) -> None:
        """There is more, but it will not come."""
        if not self._finished and self._broken is None:
            self._broken = why
            self._to_take.set()

    async def progress(self, beyond: int) -> None:
        """Wait until more items than this are on disk, or all."""
        while self._refusal is None and self.durable <= beyond and not self.complete:
            self._progress.clear()
            await self._progress.wait()
        self._check()

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    # The job's side

    async def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """See `ItemSource`."""
        while True:
            while self._parts:
                yield self._parts.popleft()
            if self._finished:
                return
            if self._broken is not None:
                raise broken_off(self._put, self._broken)
            self._to_take.clear()
            await self._to_take.wait()

    def written(self, position: bytes, *, complete: bool) -> None:
        """All up to there is on disk; with `complete` also that there is no more."""
        self.durable = max(self.durable, items_of(position))
        self.complete = complete
        while self._sizes and self._sizes[0][0] <= self.durable:
            self._waiting_bytes -= self._sizes.popleft()[1]
        self._progress.set()

    def close(self, refusal: CortexError) -> None:
        """The job takes no more."""
        if not self.complete and self._refusal is None:
            self._refusal = refusal
            self._progress.set()


def broken_off(items: int, why: str) -> CortexError:
    """Why a job ends whose stream did not."""
    text = f"the stream of items broke off after {items:,} items had arrived: {why}"
    return CortexError(BROKEN_OFF, text, Category.CONFLICT)
