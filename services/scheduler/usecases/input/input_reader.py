"""Reading a range of a job's item stream, wherever its pieces lie: in the ledger, or in files and objects.

Pieces that are only references are fetched from the object store, whole, and checked. Consecutive references to one
object are one request, also beyond the range that was asked for (*read-ahead*), so that reading batch after batch costs
a request every few MiB. What was fetched last stays at hand.

What cannot be read where it is raises `UnreadableError`. `lost` says that this is for good: the object is gone or
changed.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence

from services.common.errors import Category, CortexError
from services.scheduler.domain.errors import OBJECT_CHANGED
from services.scheduler.domain.model.item_stream import PlacedPiece, Reference, StoredObject
from services.scheduler.usecases.ports.ledger import InputLedger
from services.scheduler.usecases.ports.objects import ObjectStore, whole

FETCH_BYTES = 4 * 1024 * 1024
"""In one request, unless a single piece is larger."""
CACHE_BYTES = 2 * FETCH_BYTES
"""Fresh batches and returned ones may be read by turns."""
REFERENCES_AHEAD = 32
"""Looked at for one request."""


class UnreadableError(CortexError):
    """A part of an input that is not in the ledger cannot be read where it is."""

    def __init__(self, cause: CortexError) -> None:
        super().__init__(cause.kind, cause.message, cause.category)

    @property
    def lost(self) -> bool:
        """Whether it is useless to try again: the object is gone, or not what it was."""
        return self.kind == OBJECT_CHANGED


def is_lost(error: CortexError) -> bool:
    """Whether it is an `UnreadableError` for good."""
    return isinstance(error, UnreadableError) and error.lost


class InputReader:
    """The item stream of one job. Not for two tasks at once."""

    def __init__(self, ledger: InputLedger, objects: ObjectStore, job_id: str, *, read_ahead: bool) -> None:
        self._ledger = ledger
        self._objects = objects
        self._job_id = job_id
        self._read_ahead = read_ahead
        self._cache: OrderedDict[int, bytes] = OrderedDict()  # by where a piece starts; the least recently used first
        self._cache_bytes = 0
        self._lost: tuple[StoredObject, CortexError] | None = None  # the latest; asked no more

    async def read(self, start: int, end: int) -> bytes:
        """A range; shorter where the stream ends before `end`. Raises `CortexError`, also `UnreadableError`."""
        pieces = await self._ledger.read_input(self._job_id, start, end)
        if not any(isinstance(placed.piece, Reference) for placed in pieces):
            return b"".join([placed.piece for placed in pieces])  # type: ignore[misc]  # bytes, as was just looked at
        return await self._resolve(pieces, start, end)

    async def copy(self, start: int, end: int) -> bytes | None:
        """The same, or None when the ledger holds all of it anyway."""
        pieces = await self._ledger.read_input(self._job_id, start, end)
        if not any(isinstance(placed.piece, Reference) for placed in pieces):
            return None
        return await self._resolve(pieces, start, end)

    async def _resolve(self, pieces: Sequence[PlacedPiece], start: int, end: int) -> bytes:
        parts = []
        for placed in pieces:
            data = placed.piece if isinstance(placed.piece, bytes) else await self._fetched(placed, pieces)
            parts.append(data[max(start - placed.start, 0) : end - placed.start])
        return b"".join(parts)

    async def _fetched(self, wanted: PlacedPiece, pieces: Sequence[PlacedPiece]) -> bytes:
        if wanted.start not in self._cache:
            await self._fetch(await self._run(wanted, pieces))
        self._cache.move_to_end(wanted.start)
        return self._cache[wanted.start]

    async def _run(self, first: PlacedPiece, pieces: Sequence[PlacedPiece]) -> list[tuple[int, Reference]]:
        """References that one request can read, from this one on."""
        following: Sequence[PlacedPiece] = [placed for placed in pieces if placed.start >= first.start]
        if self._read_ahead:
            following = await self._ledger.references(self._job_id, first.start, REFERENCES_AHEAD)
        run: list[tuple[int, Reference]] = []
        for placed in following:
            piece = placed.piece
            if not isinstance(piece, Reference) or (run and not _continues(run, placed.start, piece)):
                break
            run.append((placed.start, piece))
        return run

    async def _fetch(self, run: Sequence[tuple[int, Reference]]) -> None:
        source, start = run[0][1].source, run[0][1].start
        if self._lost is not None and self._lost[0] == source:
            raise UnreadableError(self._lost[1])
        end = min(run[-1][1].start + run[-1][1].length, source.size)
        try:
            data = await whole(self._objects.read(source, start, end))
            checked = [_checked(reference, data, start) for _, reference in run]
        except CortexError as error:
            if error.kind == OBJECT_CHANGED:
                self._lost = (source, error)
            raise UnreadableError(error) from error
        for (place, _), items in zip(run, checked, strict=True):
            self._remember(place, items)

    def _remember(self, start: int, data: bytes) -> None:
        self._cache_bytes += len(data) - len(self._cache.pop(start, b""))
        self._cache[start] = data
        while self._cache_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cache_bytes -= len(oldest)


def _continues(run: Sequence[tuple[int, Reference]], start: int, reference: Reference) -> bool:
    """Whether one request can read this as well."""
    (first_start, _), (last_start, last) = run[0], run[-1]
    return (
        reference.source == last.source
        and reference.start == last.start + last.length
        and start == last_start + last.length
        and start + reference.length - first_start <= FETCH_BYTES
    )


def _checked(reference: Reference, data: bytes, data_start: int) -> bytes:
    """The reference's part of the item stream, from the object's bytes."""
    first = reference.start - data_start
    items = data[first : first + reference.length].replace(b"\n", b",")
    if len(items) == reference.length - 1:  # the file's last line without a line feed
        items += b","
    if zlib.crc32(items) != reference.checksum:
        text = f"{reference.source.uri} changed after it was split into batches: it does not hold the same any more"
        raise CortexError(OBJECT_CHANGED, text, Category.CONFLICT)
    return items
