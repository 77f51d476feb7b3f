"""Reading ranges of files in order, with several requests under way at once.

A store takes a while to answer, and gives a connection only so much: one request after the other would be slow. So the
ranges that come next are asked for as well, and what comes of them before its turn waits in memory. When that is enough
only the range whose turn it is goes on, and the senders of the others are held back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from services.scheduler.domain.errors import object_changed
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.ports.objects import ReadableObjects

RANGE_BYTES = 4 * 1024 * 1024
"""Of a request. S3 answers after 30 to 100 ms, and then gives about 80 MB/s: of smaller ones most would be waiting."""
REQUESTED_BYTES = 5 * RANGE_BYTES
"""Under way together: as many connections as S3 needs to give more than is split in the same time."""
REQUESTS = 16
"""Under way together, where files are small."""
WAITING_BYTES = 5 * 1024 * 1024
"""Before their turn. With less, the connections would have to wait for each other."""
STEP_BYTES = 1024 * 1024
"""Given at once."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file."""

    path: int
    """The number of the path that the file was found under."""
    stored: StoredObject
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Step:
    """Bytes of a file, behind those of the step before."""

    place: Range
    """What they are of."""
    chunks: list[bytes]
    last: bool
    """Whether the file ends here."""


async def read_ahead(objects: ReadableObjects, ranges: AsyncIterator[Range]) -> AsyncGenerator[Step, None]:
    """What is in these ranges, none of them empty, in their order. Raises what reading raises, when it is its turn."""
    ahead = _Ahead(objects)
    try:
        async for place in ranges:
            while not ahead.has_room_for(place):
                yield await ahead.step()
            ahead.request(place)
        while ahead.is_under_way:
            yield await ahead.step()
    finally:
        await ahead.close()


class _Ahead:
    """The requests under way, in order."""

    def __init__(self, objects: ReadableObjects) -> None:
        self._objects = objects
        self._requests: deque[_Request] = deque()
        self._requested = 0
        self._waiting = 0
        self._room = asyncio.Event()

    @property
    def is_under_way(self) -> bool:
        """Whether there is anything left."""
        return bool(self._requests)

    def has_room_for(self, place: Range) -> bool:
        """Whether it may be requested now."""
        size = self._requested + place.end - place.start
        return not self._requests or (len(self._requests) < REQUESTS and size <= REQUESTED_BYTES)

    def request(self, place: Range) -> None:
        """Ask for this range as well."""
        self._requested += place.end - place.start
        self._requests.append(_Request(self, self._objects, place))

    async def step(self) -> Step:
        """The next bytes of the first request."""
        request = self._requests[0]
        step = await request.step()
        if request.left == 0:
            self._requests.popleft()
            self._requested -= request.place.end - request.place.start
            self._room.set()  # it is the next one's turn
        return step

    async def room(self, request: "_Request", chunk: bytes) -> None:
        """Wait until this may wait in memory."""
        while self._waiting >= WAITING_BYTES and (request is not self._requests[0] or request.waiting >= STEP_BYTES):
            self._room.clear()
            await self._room.wait()
        self._waiting += len(chunk)

    def taken(self, chunk: bytes) -> None:
        """This waits no longer."""
        self._waiting -= len(chunk)
        self._room.set()

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [request.task for request in self._requests]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Request:
    """A range that is being read."""

    def __init__(self, ahead: _Ahead, objects: ReadableObjects, place: Range) -> None:
        self.place = place
        self.left = place.end - place.start
        """Bytes that were not taken."""
        self.waiting = 0
        """Bytes that may be taken."""
        self._ahead = ahead
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._read(objects))
        self.task.add_done_callback(lambda _: self._news.set())

    async def _read(self, objects: ReadableObjects) -> None:
        async with aclosing(objects.read(self.place.stored, self.place.start, self.place.end)) as chunks:
            async for chunk in chunks:
                await self._ahead.room(self, chunk)
                self._chunks.append(chunk)
                self.waiting += len(chunk)
                self._news.set()

    async def step(self) -> Step:
        """The next STEP_BYTES, or what is left."""
        chunks: list[bytes] = []
        missing = min(STEP_BYTES, self.left)
        while missing:
            chunk = await self._chunk(missing)
            chunks.append(chunk)
            missing -= len(chunk)
        return Step(self.place, chunks, self.left == 0 and self.place.end == self.place.stored.size)

    async def _chunk(self, limit: int) -> bytes:
        while not self._chunks:
            if self.task.done():
                self.task.result()
                raise object_changed(self.place.stored)  # it had less than it said
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self.waiting -= len(chunk)
        self.left -= len(chunk)
        self._ahead.taken(chunk)
        return chunk
