"""What is in a file: its items, and where they are. This runs in a thread, a step at a time.

Of a file with a value on each line only references are kept: it is read again when its batches are due. The rest is
copied, and so is what a packed file unpacks to.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec

from services.scheduler.domain.model.item_stream import Piece, Reference, StoredObject
from services.scheduler.domain.ndjson import SplitPiece, Splitter
from services.scheduler.usecases.input.gunzip import Gunzip
from services.scheduler.usecases.input.source import Part

WINDOW_BYTES = 64 * 1024
"""Split at once: while a thread does it the event loop may have to wait for it."""
REFERENCE_BYTES = 32 * 1024
"""Shorter parts of files are copied: many small files must not become a request each, for their batches."""


class FilePosition(msgspec.Struct, frozen=True):
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
        """The file."""
        return StoredObject(self.uri, self.size, self.tag)

    def encode(self) -> bytes:
        """As it goes with a part."""
        return msgspec.json.encode(self)


def file_position(position: bytes) -> FilePosition:
    """From what went with a part; the beginning of all from `b""`."""
    return msgspec.json.decode(position, type=FilePosition) if position else FilePosition()


def is_packed(stored: StoredObject) -> bool:
    """Whether a file is packed with gzip."""
    return stored.uri.endswith(".gz")


def open_file(stored: StoredObject, begin: FilePosition) -> "PlainFile | PackedFile":
    """A file's items, behind a position in it."""
    return PackedFile(stored, begin) if is_packed(stored) else PlainFile(stored, begin)


class PlainFile:
    """A file as it is."""

    def __init__(self, stored: StoredObject, begin: FilePosition) -> None:
        self.stored = stored
        self._begin = begin
        self._splitter = Splitter(stored.uri, offset=begin.offset, line=begin.line, item=begin.item)

    def steps(self, chunks: Iterable[bytes], *, last: bool) -> Iterator[Part]:
        """The items in the file's next bytes, step by step."""
        yield self._part(self._splits(chunks))
        if last:
            yield self._part(self._splitter.finish())

    def _splits(self, chunks: Iterable[bytes]) -> Iterator[SplitPiece]:
        for chunk in chunks:
            for start in range(0, len(chunk), WINDOW_BYTES):
                yield from self._splitter.feed(chunk[start : start + WINDOW_BYTES])

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


class PackedFile:
    """A file that is packed with gzip. It is always read from its start: what is done is passed over."""

    def __init__(self, stored: StoredObject, begin: FilePosition) -> None:
        self.stored = stored
        self._begin = begin
        self._gunzip = Gunzip(stored.uri)
        self._splitter = Splitter(stored.uri, offset=begin.offset, line=begin.line, item=begin.item)
        self._done = begin.offset

    def steps(self, chunks: Iterable[bytes], *, last: bool) -> Iterator[Part]:
        """The items in what the file's next bytes unpack to, step by step."""
        for step in chain.from_iterable(map(self._gunzip.feed, chunks)):
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


def _behind(split: SplitPiece, file: FilePosition) -> bytes:
    return msgspec.structs.replace(file, offset=split.end, line=split.line, item=split.item).encode()
