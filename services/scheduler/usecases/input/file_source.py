"""Files as a source of items: listed, and read in ranges, several of them at once, in order.

What a range holds is looked at by a thread.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from services.scheduler.domain.model.item_stream import Source, SourceKind, StoredObject
from services.scheduler.usecases.input.file_content import (
    FilePosition,
    PackedFile,
    PlainFile,
    file_position,
    is_packed,
    open_file,
)
from services.scheduler.usecases.input.selection import Selection
from services.scheduler.usecases.input.source import ItemSource, Part
from services.scheduler.usecases.ports.objects import ReadableObjects

RANGE_BYTES = 1024 * 1024
"""Read at once."""

READS_AHEAD = 8
"""Ranges that are asked for together: with `RANGE_BYTES` the memory that reading takes."""

SMALL_STEP_BYTES = 16 * 1024
"""Split in less time than a thread takes to start."""


def file_source(objects: ReadableObjects, source: Source) -> ItemSource:
    """The source that a submission asked for."""
    selection = Selection(objects, source)
    return FilePaths(selection) if source.kind is SourceKind.FILE_PATHS else FileContents(objects, selection)


@dataclass(frozen=True, slots=True)
class FilePaths:
    """Every item is a file's path."""

    selection: Selection

    async def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """See `ItemSource`."""
        begin = file_position(position)
        async with aclosing(self.selection.files(begin.path, begin.uri)) as pages:
            async for path, page in pages:
                if page:
                    items = [msgspec.json.encode(stored.uri) + b"," for stored in page]
                    end = FilePosition(path, page[-1].uri)
                    yield Part([b"".join(items)], [len(item) for item in items], end.encode())


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of a file."""

    path: int
    stored: StoredObject
    start: int
    end: int


class FileContents:
    """Every item is a JSON value in a file; values run on from file to file."""

    def __init__(self, objects: ReadableObjects, selection: Selection) -> None:
        self._objects = objects
        self._selection = selection

    async def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """See `ItemSource`."""
        begin = file_position(position)
        file: PlainFile | PackedFile | None = None
        async with aclosing(self._chunks(begin)) as chunks:
            async for place, data in chunks:
                if file is None or place.stored is not file.stored:
                    same = place.stored == begin.stored and place.path == begin.path
                    file = open_file(place.stored, begin if same else _start_of(place))
                async for part in _split(file.steps(data, last=place.end == place.stored.size), len(data)):
                    yield part

    async def _chunks(self, begin: FilePosition) -> AsyncGenerator[tuple[_Range, bytes], None]:
        """The files' bytes in order. Several ranges are read at once."""
        under_way: deque[tuple[_Range, asyncio.Task[bytes]]] = deque()
        try:
            async with aclosing(self._ranges(begin)) as ranges:
                async for place in ranges:
                    reading = self._objects.read(place.stored, place.start, place.end)
                    under_way.append((place, asyncio.create_task(reading)))
                    if len(under_way) >= READS_AHEAD:
                        yield await _first(under_way)
            while under_way:
                yield await _first(under_way)
        finally:
            tasks = [task for _, task in under_way]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ranges(self, begin: FilePosition) -> AsyncGenerator[_Range, None]:
        if begin.uri:
            for place in _cut(begin.path, begin.stored, begin.offset):
                yield place
        async with aclosing(self._selection.files(begin.path, begin.uri)) as pages:
            async for path, page in pages:
                for stored in page:
                    for place in _cut(path, stored, 0):
                        yield place


def _start_of(place: _Range) -> FilePosition:
    return FilePosition(place.path, place.stored.uri, place.stored.size, place.stored.tag)


async def _first(under_way: "deque[tuple[_Range, asyncio.Task[bytes]]]") -> tuple[_Range, bytes]:
    place, task = under_way[0]
    data = await task
    under_way.popleft()
    return place, data


def _cut(path: int, stored: StoredObject, offset: int) -> Iterator[_Range]:
    first = 0 if is_packed(stored) else offset
    for start in range(first, stored.size, RANGE_BYTES):
        yield _Range(path, stored, start, min(start + RANGE_BYTES, stored.size))


async def _split(steps: Iterator[Part], size: int) -> AsyncIterator[Part]:
    """Take the steps, by a thread where that is worth it."""
    while True:
        part = next(steps, None) if size <= SMALL_STEP_BYTES else await asyncio.to_thread(next, steps, None)
        if part is None:
            return
        if part.lengths:
            yield part
