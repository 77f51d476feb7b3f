"""Jobs' item streams, and the batches that they are cut into."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.statements import KEEP, insert_rows, job_and_size, job_key, marks
from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece, Reference, StoredObject

_REFERENCE_COLUMNS = "uri, size, tag, object_start, length, checksum"
_FROM = "CASE WHEN start < :start THEN :start ELSE start END"
_TO = "CASE WHEN :end < start + length(bytes) THEN :end ELSE start + length(bytes) END"
_CUT = f"substr(bytes, CAST({_FROM} - start + 1 AS INTEGER), CAST({_TO} - {_FROM} AS INTEGER))"
"""Of a stored piece, what is in a range."""

INPUT_ROWS_AT_ONCE = 8
"""SQLite copies what is bound to a statement: a few pieces at once, not all of a submission."""


class InputTables(Tables):
    """See `InputLedger`."""

    async def add_segments(
        self,
        job_id: str,
        segments: Sequence[Segment],
        cursor: Cursor,
        pieces: Iterable[Piece] = (),
        digest: bytes = b"",
    ) -> int:
        """See the port."""
        stream = [piece for piece in pieces if piece]
        values = (cursor.offset, cursor.done, cursor.position)

        def operation(connection: Connection) -> int:
            key, size = job_and_size(connection, job_id)
            append_pieces(connection, key, stream)
            known = append_segments(connection, key, size, segments)
            if digest:
                connection.execute("UPDATE requests SET digest = ? WHERE job_id = ?", (digest, job_id))
            connection.execute(
                "UPDATE jobs SET input_offset = ?, input_done = ?, input_position = ? WHERE key = ?", (*values, key)
            )
            return known

        return await self._writer.submit(operation)

    async def segments(self, job_id: str, first_index: int, limit: int) -> list[Segment]:
        """See the port."""
        found = await self._select(
            "SELECT first_index, start, lengths FROM segments, (SELECT key FROM jobs WHERE job_id = :job_id) AS asked"
            " WHERE job = key AND first_index + length(lengths) / 4 > :index AND first_index >= coalesce("
            "  (SELECT max(first_index) FROM segments WHERE job = key AND first_index <= :index), 0)"
            " ORDER BY first_index LIMIT :limit",
            {"job_id": job_id, "index": first_index, "limit": limit},
        )
        return [_segment_of(row) for row in found]

    async def read_input(self, job_id: str, start: int, end: int) -> list[PlacedPiece]:
        """See the port."""
        if end <= start:
            return []
        found = await self._select(
            f"SELECT start, {_CUT}, {_REFERENCE_COLUMNS}"  # noqa: S608  # constants
            " FROM (SELECT key FROM jobs WHERE job_id = :job_id) AS asked CROSS JOIN input"
            " LEFT JOIN objects ON objects.job = key AND number = object"
            " WHERE input.job = key AND start < :end AND start >= coalesce("
            "  (SELECT max(start) FROM input WHERE job = key AND start <= :start), 0)"
            " AND start + coalesce(length, length(bytes)) > :start ORDER BY start",
            {"job_id": job_id, "start": start, "end": end},
        )
        return [_piece_of(row, start) for row in found]

    async def references(self, job_id: str, start: int, limit: int) -> list[PlacedPiece]:
        """See the port."""
        found = await self._select(
            f"SELECT start, bytes, {_REFERENCE_COLUMNS}"  # noqa: S608  # constants
            " FROM (SELECT key FROM jobs WHERE job_id = :job_id) AS asked CROSS JOIN input"
            " JOIN objects ON objects.job = key AND number = object"
            " WHERE input.job = key AND start >= :start ORDER BY start LIMIT :limit",
            {"job_id": job_id, "start": start, "limit": limit},
        )
        return [_piece_of(row) for row in found]

    async def next_piece(self, job_id: str, offset: int) -> bytes:
        """See the port."""
        found = await self._select(
            "SELECT substr(bytes, CAST(:offset - start + 1 AS INTEGER))"
            " FROM input, (SELECT key FROM jobs WHERE job_id = :job_id) AS asked"
            " WHERE job = key AND start <= :offset ORDER BY start DESC LIMIT 1",
            {"job_id": job_id, "offset": offset},
        )
        return b"".join(row[0] for row in found)

    async def keep_items(self, job_id: str, copies: Mapping[int, bytes]) -> None:
        """See the port."""
        values = list(copies.items())

        def operation(connection: Connection) -> None:
            key = job_key(connection, job_id)
            insert_rows(connection, "kept_items", key, values, KEEP, INPUT_ROWS_AT_ONCE)

        await self._writer.submit(operation)

    async def kept_items(self, job_id: str, indexes: Sequence[int]) -> dict[int, bytes]:
        """See the port."""
        found = await self._select(
            "SELECT batch, bytes FROM kept_items WHERE job = (SELECT key FROM jobs WHERE job_id = ?)"  # noqa: S608  # question marks
            f" AND batch IN ({marks(len(indexes))})",
            (job_id, *indexes),
        )
        return dict(found)


def append_pieces(connection: Connection, key: int, pieces: Sequence[Piece]) -> None:
    """Make a job's item stream longer."""
    if not pieces:
        return
    end = connection.execute(
        "SELECT start + coalesce(length, length(bytes)) FROM input WHERE job = ? ORDER BY start DESC LIMIT 1", (key,)
    ).fetchone()
    start = end[0] if end is not None else 0
    values: list[tuple[Any, ...]] = []
    number, latest = _latest_object(connection, key)
    for piece in pieces:
        if isinstance(piece, bytes):
            values.append((start, piece, None, None, None, None))
            start += len(piece)
            continue
        if piece.source != latest:
            number, latest = number + 1, piece.source
            row = (key, number, latest.uri, latest.size, latest.tag)
            connection.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", row)
        values.append((start, None, number, piece.start, piece.length, piece.checksum))
        start += piece.length
    insert_rows(connection, "input", key, values, at_once=INPUT_ROWS_AT_ONCE)


def _latest_object(connection: Connection, key: int) -> tuple[int, StoredObject | None]:
    row = connection.execute(
        "SELECT number, uri, size, tag FROM objects WHERE job = ? ORDER BY number DESC LIMIT 1", (key,)
    ).fetchone()
    return (row[0], StoredObject(*row[1:])) if row is not None else (0, None)


def _piece_of(row: Sequence[Any], start: int = 0) -> PlacedPiece:
    """From `start, bytes` and _REFERENCE_COLUMNS. Stored bytes are cut already, to begin at `start` at least."""
    begins, stored, uri, size, tag, object_start, length, checksum = row
    if stored is not None:
        return PlacedPiece(max(begins, start), stored)
    return PlacedPiece(begins, Reference(StoredObject(uri, size, tag), object_start, length, checksum))


def append_segments(connection: Connection, key: int, known: int, segments: Sequence[Segment]) -> int:
    """Give segments the next free indexes of a job of `known` batches; how many there are then."""
    more = []
    for segment in segments:
        more.append((known, segment.start, segment.lengths.tobytes()))
        known += len(segment.lengths)
    if more:
        insert_rows(connection, "segments", key, more)
        connection.execute("UPDATE jobs SET next_index = ? WHERE key = ?", (known, key))
    return known


def _segment_of(row: Sequence[Any]) -> Segment:
    """From first_index, start, lengths."""
    first_index, start, lengths = row
    return Segment(first_index, start, array("I", lengths))
