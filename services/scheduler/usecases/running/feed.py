"""Keeps batches ready to be leased, so that dispatching never waits for the disk.

Fresh batches are read ahead in order, in ranges of the item stream. Batches that were given back are fetched one by
one: they are few. Both wait in memory up to a bound; `on_ready` says that there is more. A read that fails is tried
again until it succeeds, unless what it was to read is lost for good: `on_lost` is told of exactly the batches that
needed it, when it is their turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, count

from services.scheduler.domain.leases import LeaseBook
from services.scheduler.domain.model.batch import Segment
from services.scheduler.domain.partition import payload
from services.scheduler.usecases.input.input_reader import InputReader, UnreadableError, is_lost
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore

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
        objects: ObjectStore,
        job_id: str,
        book: LeaseBook,
        on_ready: Callable[[], None],
        on_lost: Callable[[int, str], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._reader = InputReader(ledger, objects, job_id, read_ahead=True)
        self._job_id = job_id
        self._book = book
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._patience = Patience(job_id, "batches cannot be read", on_trouble, is_lost)
        self._lost: dict[int, str] = {}  # why, of batches that wait with an empty payload
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
        while (batch := self._first()) is not None and not batch[1]:
            self.pop()
            self._on_lost(batch[0], self._lost.pop(batch[0]))
        return batch

    def _first(self) -> tuple[int, bytes] | None:
        """The batch whose turn it is; its payload is empty when it is lost."""
        while self._returned and not self._book.is_returned(self._returned[0][0]):
            self._forget(self._returned.popleft()[0])  # settled or adopted meanwhile
        if self._returned:
            return self._returned[0]
        while self._fresh and self._fresh[0][0] < self._book.cursor:
            self._forget(self._fresh[0][0])
            self._pop_fresh()  # adopted by a returning worker
        return None if not self._fresh or self._book.crowded else self._fresh[0]

    def _forget(self, index: int) -> None:
        if self._lost:
            self._lost.pop(index, None)

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
            self._returned.append((index, await self._body(index, *segment.range_of(index))))
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
        return await self._patience(lambda: self._reader.read(start, end))

    async def _body(self, index: int, start: int, end: int) -> bytes:
        """One batch's payload; empty when it is lost."""
        try:
            return payload(await self._input(start, end))
        except UnreadableError as error:
            self._lost[index] = error.message
            return b""

    async def _bodies(self, start: int, lengths: Sequence[int]) -> list[bytes]:
        """The payloads of the fresh batches from `_next` on."""
        try:
            data = memoryview(await self._input(start, start + sum(lengths)))
        except UnreadableError:
            starts = accumulate(lengths, initial=start)
            places = zip(count(self._next), starts, lengths, strict=False)
            return [await self._body(index, first, first + length) for index, first, length in places]
        ends = accumulate(lengths)
        return [payload(data[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

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
            for body in await self._bodies(start, lengths[position:last]):
                self._fresh.append((self._next, body))
                self._fresh_bytes += len(body)
                self._next += 1
            position, start = last, start + size
            self._on_ready()
