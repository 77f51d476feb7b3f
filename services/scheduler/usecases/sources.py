"""Where a job's items come from after its submission: files that are listed, and files that are read.

A source gives its items in order, in *parts*. Each part tells the *position* behind it: what the source must be told to
go on there after a restart. It is kept with the part, in one transaction.

Files are read in ranges, several of them at once, in order. What a range holds is looked at by a thread. Of a file with
a value on each line only references are kept: it is read again when its batches are due.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import msgspec

from services.scheduler.domain.model.item_stream import Piece, Reference, Source, SourceKind, StoredObject
from services.scheduler.domain.ndjson import SplitPiece, Splitter
from services.scheduler.usecases.gunzip import Gunzip
from services.scheduler.usecases.ports.objects import ReadableObjects
from services.scheduler.usecases.selection import Selection

RANGE_BYTES = 1024 * 1024
"""Read at once."""
READS_AHEAD = 8
"""Ranges that are asked for together: with `RANGE_BYTES` the memory that reading takes."""
WINDOW_BYTES = 64 * 1024
"""Split at once: while a thread does it the event loop may have to wait for it."""
SMALL_STEP_BYTES = 16 * 1024
"""Split in less time than a thread takes to start."""
REFERENCE_BYTES = 32 * 1024
"""Shorter parts of files are copied: many small files must not become a request each, for their batches."""


@dataclass(frozen=True, slots=True)
class Part:
    """Items on their way into a job."""

    pieces: Sequence[Piece]
    lengths: Sequence[int]
    """Of the items, commas included."""
    position: bytes
    """Behind it, as JSON: where the source goes on."""


class ItemSource(Protocol):
    """Where items come from."""

    def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """What is behind a position (`b""`: all), until there is no more.

        Raises `CortexError` when something is wrong with it, which ends the job.
        """


def file_source(objects: ReadableObjects, source: Source) -> ItemSource:
    """The source that a submission asked for."""
    selection = Selection(objects, source)
    return FilePaths(selection) if source.kind is SourceKind.FILE_PATHS else FileContents(objects, selection)


class _FilePosition(msgspec.Struct, frozen=True):
    """A place in the chosen files."""

    path: int = 0
    """The path that is being listed."""
    uri: str = ""
    """The file under way, or the last one that is done."""
    size: int = 0
    tag: str = ""
    offset: int = 0
    """Bytes of it that are done: of what it unpacks to, where it is packed."""
    line: int = 1
    item: int = 1
    """The next ones' numbers, for messages."""

    @property
    def stored(self) -> StoredObject:
        return StoredObject(self.uri, self.size, self.tag)


def _decoded(position: bytes) -> _FilePosition:
    return msgspec.json.decode(position, type=_FilePosition) if position else _FilePosition()


@dataclass(frozen=True, slots=True)
class FilePaths:
    """Every item is a file's path."""

    selection: Selection

    async def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """See `ItemSource`."""
        begin = _decoded(position)
        async with aclosing(self.selection.files(begin.path, begin.uri)) as pages:
            async for path, page in pages:
                if page:
                    items = [msgspec.json.encode(stored.uri) + b"," for stored in page]
                    end = _FilePosition(path, page[-1].uri)
                    yield Part([b"".join(items)], [len(item) for item in items], msgspec.json.encode(end))


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
        begin = _decoded(position)
        file: _PlainFile | _PackedFile | None = None
        async with aclosing(self._chunks(begin)) as chunks:
            async for place, data in chunks:
                if file is None or place.stored is not file.stored:
                    same = place.stored == begin.stored and place.path == begin.path
                    file = _open(place, begin if same else _FilePosition(place.path, *_about(place.stored)))
                async for part in _split(file.steps(data, last=place.end == place.stored.size), len(data)):
                    yield part

    async def _chunks(self, begin: _FilePosition) -> AsyncGenerator[tuple[_Range, bytes], None]:
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

    async def _ranges(self, begin: _FilePosition) -> AsyncGenerator[_Range, None]:
        if begin.uri:
            for place in _cut(begin.path, begin.stored, begin.offset):
                yield place
        async with aclosing(self._selection.files(begin.path, begin.uri)) as pages:
            async for path, page in pages:
                for stored in page:
                    for place in _cut(path, stored, 0):
                        yield place


async def _first(under_way: "deque[tuple[_Range, asyncio.Task[bytes]]]") -> tuple[_Range, bytes]:
    place, task = under_way[0]
    data = await task
    under_way.popleft()
    return place, data


def _cut(path: int, stored: StoredObject, offset: int) -> Iterator[_Range]:
    first = 0 if _is_packed(stored) else offset
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


# What is in a file. This runs in a thread, a step at a time.


def _is_packed(stored: StoredObject) -> bool:
    return stored.uri.endswith(".gz")


def _about(stored: StoredObject) -> tuple[str, int, str]:
    return stored.uri, stored.size, stored.tag


def _open(place: _Range, begin: _FilePosition) -> "_PlainFile | _PackedFile":
    return _PackedFile(place.stored, begin) if _is_packed(place.stored) else _PlainFile(place.stored, begin)


class _PlainFile:
    """A file as it is."""

    def __init__(self, stored: StoredObject, begin: _FilePosition) -> None:
        self.stored = stored
        self._begin = begin
        self._splitter = Splitter(stored.uri, offset=begin.offset, line=begin.line, item=begin.item)

    def steps(self, data: bytes, *, last: bool) -> Iterator[Part]:
        """The items in the file's next bytes, step by step."""
        yield self._part(self._splits(data))
        if last:
            yield self._part(self._splitter.finish())

    def _splits(self, data: bytes) -> Iterator[SplitPiece]:
        for start in range(0, len(data), WINDOW_BYTES):
            yield from self._splitter.feed(data[start : start + WINDOW_BYTES])

    def _part(self, splits: Iterable[SplitPiece]) -> Part:
        pieces: list[Piece] = []
        lengths: list[int] = []
        run: list[SplitPiece] = []  # plain ones that follow each other in the file, or any other one alone
        checksum = 0
        for split in splits:
            if run and not (run[-1].plain and split.plain and run[-1].end == split.start):
                pieces += self._pieces(run, checksum)
                run, checksum = [], 0
            run.append(split)
            lengths += split.lengths
            checksum = zlib.crc32(split.data, checksum)  # without the interpreter's lock: the event loop's chance
        if not run:
            return _NOTHING
        return Part(pieces + self._pieces(run, checksum), lengths, _behind(run[-1], self._begin))

    def _pieces(self, run: Sequence[SplitPiece], checksum: int) -> list[Piece]:
        length = sum(len(split.data) for split in run)
        if run[0].plain and length >= REFERENCE_BYTES:
            return [Reference(self.stored, run[0].start, length, checksum)]
        return [split.data for split in run]


class _PackedFile:
    """A file that is packed with gzip. It is always read from its start: what is done is passed over."""

    def __init__(self, stored: StoredObject, begin: _FilePosition) -> None:
        self.stored = stored
        self._begin = begin
        self._gunzip = Gunzip(stored.uri)
        self._splitter = Splitter(stored.uri, offset=begin.offset, line=begin.line, item=begin.item)
        self._done = begin.offset

    def steps(self, data: bytes, *, last: bool) -> Iterator[Part]:
        """The items in what the file's next bytes unpack to, step by step."""
        for step in self._gunzip.feed(data):
            fresh = step[self._done :]
            self._done -= len(step) - len(fresh)
            yield self._part(self._splitter.feed(fresh))
        if last:
            self._gunzip.finish()
            yield self._part(self._splitter.finish())

    def _part(self, splits: Sequence[SplitPiece]) -> Part:
        if not splits:
            return _NOTHING
        lengths = list(chain.from_iterable(split.lengths for split in splits))
        return Part([split.data for split in splits], lengths, _behind(splits[-1], self._begin))


_NOTHING = Part([], [], b"")


def _behind(split: SplitPiece, file: _FilePosition) -> bytes:
    position = msgspec.structs.replace(file, offset=split.end, line=split.line, item=split.item)
    return msgspec.json.encode(position)
