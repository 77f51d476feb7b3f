"""Files as a source of items: listed, read ahead in order, and looked into by a thread."""

import asyncio
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
from services.scheduler.usecases.input.read_ahead import RANGE_BYTES, Range, read_ahead
from services.scheduler.usecases.input.selection import Selection
from services.scheduler.usecases.input.source import ItemSource, Part
from services.scheduler.usecases.ports.objects import ReadableObjects

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


class FileContents:
    """Every item is a JSON value in a file; values run on from file to file."""

    def __init__(self, objects: ReadableObjects, selection: Selection) -> None:
        self._objects = objects
        self._selection = selection

    async def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """See `ItemSource`."""
        begin = file_position(position)
        file: PlainFile | PackedFile | None = None
        async with aclosing(self._ranges(begin)) as ranges, aclosing(read_ahead(self._objects, ranges)) as steps:
            async for step in steps:
                place = step.place
                if file is None or place.stored is not file.stored:
                    same = place.stored == begin.stored and place.path == begin.path
                    file = open_file(place.stored, begin if same else _start_of(place))
                async for part in _split(file.steps(step.chunks, last=step.last), sum(map(len, step.chunks))):
                    yield part

    async def _ranges(self, begin: FilePosition) -> AsyncGenerator[Range, None]:
        if begin.uri:
            for place in _cut(begin.path, begin.stored, begin.offset):
                yield place
        async with aclosing(self._selection.files(begin.path, begin.uri)) as pages:
            async for path, page in pages:
                for stored in page:
                    for place in _cut(path, stored, 0):
                        yield place


def _start_of(place: Range) -> FilePosition:
    return FilePosition(place.path, place.stored.uri, place.stored.size, place.stored.tag)


def _cut(path: int, stored: StoredObject, offset: int) -> Iterator[Range]:
    first = 0 if is_packed(stored) else offset
    for start in range(first, stored.size, RANGE_BYTES):
        yield Range(path, stored, start, min(start + RANGE_BYTES, stored.size))


async def _split(steps: Iterator[Part], size: int) -> AsyncIterator[Part]:
    """Take the steps, by a thread where that is worth it."""
    while True:
        part = next(steps, None) if size <= SMALL_STEP_BYTES else await asyncio.to_thread(next, steps, None)
        if part is None:
            return
        if part.lengths:
            yield part
