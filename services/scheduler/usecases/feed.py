"""Keeps batches ready to be leased, so that dispatching never waits for the disk.

Fresh batches are read ahead in order, in ranges of the item stream. Batches that were given back are fetched one by
one: they are few. Both wait in memory up to a bound; `on_ready` says that there is more. A read that fails is tried
again until it succeeds.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from services.scheduler.domain.leases import LeaseBook
from services.scheduler.domain.model import Segment
from services.scheduler.domain.partition import payload
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports import Ledger

READY_BATCHES = 2048
READY_BYTES = 8 * 1024 * 1024
RANGE_BYTES = 1024 * 1024
"""Read at once, unless a single batch is larger."""
SEGMENTS_AT_ONCE = 16
RETURNED_AT_ONCE = 64


class Feed:
    """The payloads of one job's next batches."""

    def __init__(
        self,
        ledger: Ledger,
        job_id: str,
        book: LeaseBook,
        on_ready: Callable[[], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self._book = book
        self._on_ready = on_ready
        self._patience = Patience(job_id, "batches cannot be read", on_trouble)
        self._fresh: deque[tuple[int, bytes]] = deque()
        self._fresh_bytes = 0
        self._returned: deque[tuple[int, bytes]] = deque()
        self._wanted = asyncio.Event()
        self._next = 0  # the fresh batch to read next
        self.known = 0
        """Batches that are on disk so far."""

    @property
    def trouble(self) -> str:
        """Why batches cannot be read just now, for people; empty when all is well."""
        return self._patience.trouble

    def extend(self, known: int) -> None:
        """More batches are on disk."""
        self.known = known
        self._wanted.set()

    def wake(self) -> None:
        """Batches may have been given back."""
        self._wanted.set()

    def peek(self) -> tuple[int, bytes] | None:
        """The batch to lease next, or None when none is ready; `pop` takes it."""
        while self._returned and not self._book.is_returned(self._returned[0][0]):
            self._returned.popleft()  # settled or adopted meanwhile
        if self._returned:
            return self._returned[0]
        while self._fresh and self._fresh[0][0] < self._book.cursor:
            self._pop_fresh()  # adopted by a returning worker
        return self._fresh[0] if self._fresh and not self._book.crowded else None

    def pop(self) -> None:
        """Take what `peek` showed."""
        if self._returned:
            self._returned.popleft()
            if len(self._returned) < RETURNED_AT_ONCE // 2 and self._book.unclaimed:
                self._wanted.set()
        else:
            self._pop_fresh()

    def _pop_fresh(self) -> None:
        self._fresh_bytes -= len(self._fresh.popleft()[1])
        if len(self._fresh) < READY_BATCHES // 2 and self._next < self.known:
            self._wanted.set()

    async def run(self) -> None:
        """Read ahead until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._fetch_returned()
            await self._read_ahead()

    async def _fetch_returned(self) -> None:
        while len(self._returned) < RETURNED_AT_ONCE and (index := self._book.claim_returned()) is not None:
            segment = (await self._segments(index, 1))[0]
            position = index - segment.first_index
            start = segment.start + sum(segment.lengths[:position])
            data = await self._input(start, start + segment.lengths[position])
            self._returned.append((index, payload(data)))
            self._on_ready()

    async def _read_ahead(self) -> None:
        self._next = max(self._next, self._book.cursor)
        while self._next < self.known and self._has_room():
            for segment in await self._segments(self._next, SEGMENTS_AT_ONCE):
                await self._read_segment(segment)
                if not self._has_room():
                    break

    async def _segments(self, first_index: int, limit: int) -> list[Segment]:
        return await self._patience(lambda: self._ledger.segments(self._job_id, first_index, limit))

    async def _input(self, start: int, end: int) -> bytes:
        return await self._patience(lambda: self._ledger.read_input(self._job_id, start, end))

    def _has_room(self) -> bool:
        return len(self._fresh) < READY_BATCHES and self._fresh_bytes < READY_BYTES

    async def _read_segment(self, segment: Segment) -> None:
        """Read a segment's batches from `_next` on, in ranges, as far as there is room."""
        lengths = segment.lengths
        position = self._next - segment.first_index
        start = segment.start + sum(lengths[:position])
        while position < len(lengths) and self._has_room():
            last, size = position, 0
            while last < len(lengths) and (size == 0 or size + lengths[last] <= RANGE_BYTES):
                size += lengths[last]
                last += 1
            data = memoryview(await self._input(start, start + size))
            offset = 0
            for length in lengths[position:last]:
                body = payload(data[offset : offset + length])
                self._fresh.append((self._next, body))
                self._fresh_bytes += len(body)
                self._next += 1
                offset += length
            position, start = last, start + size
            self._on_ready()
