"""The `Ledger` port on SQLite.

One file in WAL mode with `synchronous = FULL`. Writes go through one thread that groups commits (`writer.py`), reads
through others (`readers.py`). Each method hands over one operation: a function of a connection, whose values were
taken from its arguments before, so that it can be run again.
"""

import asyncio
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec

from services.scheduler.adapters.sqlite import database, rows
from services.scheduler.adapters.sqlite.open_batches import find_open_batches
from services.scheduler.adapters.sqlite.readers import Readers
from services.scheduler.adapters.sqlite.replies import find_replies
from services.scheduler.adapters.sqlite.writer import Writer
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState, Cursor, Halves, History, OpenBatches, Outcome, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece
from services.scheduler.domain.model.job import Control, JobRecord, JobSpec, JobState, Notice, RequestKey, Tally
from services.scheduler.domain.model.worker import WorkerRecord

READERS = 2
"""Reads at once: one that is long (a restart's look at a huge job) leaves the other for dispatch."""

INPUT_ROWS_AT_ONCE = 8
"""SQLite copies what is bound to a statement: a few pieces at once, not all of a submission."""

_VERSIONS_KEPT_IN_SIGHT = 100
_MAX_INDEX = 2**63 - 1


class SqliteLedger:
    """See `usecases/ports/ledger.py`. Belongs to the event loop on which it was opened."""

    def __init__(self, identity: database.Identity, lock: int, writer: Writer, readers: Readers) -> None:
        self._identity = identity
        self._lock = lock
        self._writer = writer
        self._readers = readers

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the ledger, or make a new one, and count this opening.

        Raises `CortexError`: `ledger.in_use`, `ledger.version_not_supported`, `ledger.storage_full`, `ledger.failed`.
        """
        lock, connection, identity, reading = await asyncio.to_thread(_open, path)
        explain = partial(database.explain, path=path)
        return cls(identity, lock, Writer(connection, explain), Readers(reading, explain))

    @property
    def generation(self) -> int:
        """See the port."""
        return self._identity.generation

    @property
    def secret(self) -> bytes:
        """See the port."""
        return self._identity.secret

    async def close(self) -> None:
        """See the port. May be called again."""
        await self._readers.close()
        await self._writer.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # APIs

    async def put_apis(self, versions: Sequence[ApiVersion]) -> None:
        """See the port."""
        values = [(v.name, v.api_id, v.endpoint, v.spec_json, v.deployed_ns) for v in versions]

        def operation(connection: sqlite3.Connection) -> None:
            connection.executemany(f"REPLACE INTO api_versions ({rows.API_COLUMNS}) VALUES (?, ?, ?, ?, ?)", values)  # noqa: S608  # constants
            connection.executemany("REPLACE INTO apis (name, api_id) VALUES (?, ?)", [value[:2] for value in values])

        await self._writer.submit(operation)

    async def delete_api(self, name: str) -> None:
        """See the port."""
        await self._execute("DELETE FROM apis WHERE name = ?", (name,))

    async def api(self, name: str, api_id: str | None = None) -> ApiVersion | None:
        """See the port."""
        wanted = "(SELECT api_id FROM apis WHERE name = :name)" if api_id is None else ":api_id"
        found = await self._select(
            f"SELECT {rows.API_COLUMNS} FROM api_versions WHERE name = :name AND api_id = {wanted}",  # noqa: S608  # constants
            {"name": name, "api_id": api_id},
        )
        return rows.api_of(found[0]) if found else None

    async def apis(self) -> list[ApiVersion]:
        """See the port."""
        query = f"SELECT {rows.API_COLUMNS} FROM apis JOIN api_versions USING (name, api_id) ORDER BY name"  # noqa: S608  # constants
        return [rows.api_of(row) for row in await self._select(query)]

    async def api_versions(self, name: str) -> list[ApiVersion]:
        """See the port."""
        query = f"SELECT {rows.API_COLUMNS} FROM api_versions WHERE name = ? ORDER BY deployed_ns DESC LIMIT ?"  # noqa: S608  # constants
        return [rows.api_of(row) for row in await self._select(query, (name, _VERSIONS_KEPT_IN_SIGHT))]

    # Jobs

    async def add_job(
        self,
        spec: JobSpec,
        state: JobState,
        pieces: Iterable[Piece],
        segments: Sequence[Segment],
        cursor: Cursor,
        request: RequestKey | None = None,
        *,
        earlier_retry: str = "",
    ) -> str:
        """See the port."""
        queue = spec.dead_letter_queue
        job = (
            *(spec.job_id, spec.api_name, spec.api_id, spec.workers, spec.batch_size),
            *(spec.timeout_seconds, spec.batch_timeout_seconds),
            *((None, None) if queue is None else (queue.arn, queue.max_receive_count)),
            *(spec.created_ns, spec.traceparent, *rows.state_columns(state)),
            *rows.tally_columns(Tally()),
            *(cursor.next_index, cursor.offset, cursor.done, cursor.position, 0, spec.retry_of),
        )
        submission = (
            spec.config_json,
            msgspec.json.encode(spec.options).decode(),
            msgspec.json.encode(spec.source).decode(),
        )
        stream = [piece for piece in pieces if piece]
        first_segments = rows.segment_rows(segments)

        def operation(connection: sqlite3.Connection) -> str:
            if request is not None and (earlier := rows.remember_request(connection, spec, request)):
                return earlier
            if spec.retry_of:
                rows.remember_retry(connection, spec, earlier_retry)
            connection.execute(
                "INSERT INTO jobs (job_id, api_name, api_id, workers, batch_size, timeout_seconds,"  # noqa: S608  # constants
                " batch_timeout_seconds, dead_letter_arn, max_receive_count, created_ns, traceparent,"
                " status, final, reason, completion_http_status, completion_error, ended_ns,"
                " batches_succeeded, batches_failed, batches_split, attempts_succeeded, attempts_failed,"
                " succeeded_seconds, buckets,"
                " next_index, input_offset, input_done, input_position, low_water, retry_of)"
                f" VALUES ({', '.join('?' * len(job))})",
                job,
            )
            key = rows.job_key(connection, spec.job_id)
            connection.execute("INSERT INTO submissions VALUES (?, ?, ?, ?)", (key, *submission))
            rows.append_pieces(connection, key, stream, INPUT_ROWS_AT_ONCE)
            rows.insert_rows(connection, "INTO segments", key, first_segments)
            return spec.job_id

        return await self._writer.submit(operation)

    async def request(self, api_name: str, request_id: str) -> tuple[str, RequestKey] | None:
        """See the port."""
        found = await self._select(
            "SELECT job_id, digest FROM requests WHERE api_name = ? AND request_id = ?", (api_name, request_id)
        )
        return (found[0][0], RequestKey(request_id, found[0][1])) if found else None

    async def requested(self, api_name: str, request: RequestKey) -> str | None:
        """See the port."""
        return await self._readers.run(lambda connection: rows.requested(connection, api_name, request))

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

        def operation(connection: sqlite3.Connection) -> int:
            key = rows.job_key(connection, job_id)
            rows.append_pieces(connection, key, stream, INPUT_ROWS_AT_ONCE)
            known = rows.append_segments(connection, key, segments)
            if digest:
                connection.execute("UPDATE requests SET digest = ? WHERE job_id = ?", (digest, job_id))
            connection.execute(
                "UPDATE jobs SET input_offset = ?, input_done = ?, input_position = ? WHERE key = ?", (*values, key)
            )
            return known

        return await self._writer.submit(operation)

    async def set_state(self, job_id: str, state: JobState) -> None:
        """See the port."""

        def operation(connection: sqlite3.Connection) -> None:
            _update_state(connection, rows.job_key(connection, job_id), state)

        await self._writer.submit(operation)

    async def set_control(self, job_id: str, control: Control) -> None:
        """See the port."""
        await self._execute(
            "UPDATE jobs SET workers_now = ?, paused = ? WHERE job_id = ?", (control.workers, control.paused, job_id)
        )

    async def record(
        self,
        job_id: str,
        outcomes: Sequence[Outcome],
        histories: Mapping[int, History],
        tally: Tally,
        low_water: int,
        halves: Sequence[Halves] = (),
    ) -> int:
        """See the port."""
        finals = rows.outcome_rows(outcomes)
        replies = rows.reply_chunks(outcomes)
        opens = rows.history_rows(histories)
        counts = rows.tally_columns(tally)
        more = [Segment(0, half.start, array("I", half.lengths)) for half in halves]

        def operation(connection: sqlite3.Connection) -> int:
            key = rows.job_key(connection, job_id)
            rows.insert_rows(connection, "OR IGNORE INTO outcomes", key, finals)
            for chunk in replies:
                rows.insert_rows(connection, "OR IGNORE INTO replies", key, chunk)
            rows.insert_rows(connection, "OR REPLACE INTO histories", key, opens)
            # Histories of final batches above the low-water mark go when it reaches them; nobody is told of them.
            connection.execute("DELETE FROM histories WHERE job = ? AND batch < ?", (key, low_water))
            connection.execute(
                "UPDATE jobs SET batches_succeeded = ?, batches_failed = ?, batches_split = ?, attempts_succeeded = ?,"
                " attempts_failed = ?, succeeded_seconds = ?, buckets = ?, low_water = max(low_water, ?) WHERE key = ?",
                (*counts, low_water, key),
            )
            return rows.append_segments(connection, key, more)

        return await self._writer.submit(operation)

    async def job(self, job_id: str) -> JobRecord | None:
        """See the port."""
        found = await self._select(_jobs_query(["job_id = :job_id"]), {"job_id": job_id, "limit": 1})
        return rows.job_of(found[0]) if found else None

    async def jobs(
        self, api_name: str | None = None, *, running_only: bool = False, limit: int = 100, after: str = ""
    ) -> list[JobRecord]:
        """See the port."""
        conditions = ["job_id > :after"]
        if api_name is not None:
            conditions.append("api_name = :api_name")
        if running_only:
            conditions.append("final = 0")
        values = {"after": after, "api_name": api_name, "limit": limit}
        return [rows.job_of(row) for row in await self._select(_jobs_query(conditions), values)]

    async def segments(self, job_id: str, first_index: int, limit: int) -> list[Segment]:
        """See the port."""
        found = await self._select(
            "SELECT first_index, start, lengths FROM segments, (SELECT key FROM jobs WHERE job_id = :job_id)"
            " WHERE job = key AND first_index + length(lengths) / 4 > :index AND first_index >= coalesce("
            "  (SELECT max(first_index) FROM segments WHERE job = key AND first_index <= :index), 0)"
            " ORDER BY first_index LIMIT :limit",
            {"job_id": job_id, "index": first_index, "limit": limit},
        )
        return [rows.segment_of(row) for row in found]

    async def read_input(self, job_id: str, start: int, end: int) -> list[PlacedPiece]:
        """See the port."""
        found = await self._select(
            "SELECT start, substr(bytes, max(:start - start, 0) + 1, max(:end - max(start, :start), 0)),"  # noqa: S608  # constants
            f" {rows.REFERENCE_COLUMNS} FROM (SELECT key FROM jobs WHERE job_id = :job_id) CROSS JOIN input"
            " LEFT JOIN objects ON objects.job = key AND number = object"
            " WHERE input.job = key AND start < :end AND start >= coalesce("
            "  (SELECT max(start) FROM input WHERE job = key AND start <= :start), 0)"
            " ORDER BY start",
            {"job_id": job_id, "start": start, "end": end},
        )
        pieces = (rows.piece_of(row, start) for row in found)
        return [placed for placed in pieces if placed.end > start]  # the stream may end before the range

    async def references(self, job_id: str, start: int, limit: int) -> list[PlacedPiece]:
        """See the port."""
        found = await self._select(
            f"SELECT start, bytes, {rows.REFERENCE_COLUMNS}"  # noqa: S608  # constants
            " FROM (SELECT key FROM jobs WHERE job_id = :job_id) CROSS JOIN input"
            " JOIN objects ON objects.job = key AND number = object"
            " WHERE input.job = key AND start >= :start ORDER BY start LIMIT :limit",
            {"job_id": job_id, "start": start, "limit": limit},
        )
        return [rows.piece_of(row) for row in found]

    async def keep_items(self, job_id: str, copies: Mapping[int, bytes]) -> None:
        """See the port."""
        values = list(copies.items())

        def operation(connection: sqlite3.Connection) -> None:
            key = rows.job_key(connection, job_id)
            rows.insert_rows(connection, "OR IGNORE INTO kept_items", key, values, INPUT_ROWS_AT_ONCE)

        await self._writer.submit(operation)

    async def kept_items(self, job_id: str, indexes: Sequence[int]) -> dict[int, bytes]:
        """See the port."""
        found = await self._select(
            "SELECT batch, bytes FROM kept_items WHERE job = (SELECT key FROM jobs WHERE job_id = ?)"
            " AND batch IN (SELECT value FROM json_each(?))",
            (job_id, msgspec.json.encode(list(indexes))),
        )
        return dict(found)

    async def outcomes(
        self,
        job_id: str,
        first_index: int = 0,
        end_index: int | None = None,
        *,
        state: BatchState | None = None,
        limit: int = 1000,
    ) -> list[Outcome]:
        """See the port."""
        # Written out: only so does SQLite use the index of the failed ones.
        condition = "" if state is None else f" AND state = {rows.STATE_NUMBERS[state]}"
        found = await self._select(
            "SELECT batch, state, attempts, http_status, error, outcomes.ended_ns"  # noqa: S608  # constants
            " FROM outcomes, (SELECT key FROM jobs WHERE job_id = :job_id)"
            f" WHERE job = key AND batch >= :first AND batch < :end{condition}"
            " ORDER BY batch LIMIT :limit",
            {
                "job_id": job_id,
                "first": first_index,
                "end": _MAX_INDEX if end_index is None else end_index,
                "limit": limit,
            },
        )
        return [rows.outcome_of(row) for row in found]

    async def replies(self, job_id: str, first_index: int, end_index: int | None, max_bytes: int) -> list[Outcome]:
        """See the port."""
        end = _MAX_INDEX if end_index is None else end_index
        return await self._readers.run(
            partial(find_replies, job_id=job_id, first_index=first_index, end_index=end, max_bytes=max_bytes)
        )

    async def histories(self, job_id: str, first_index: int, end_index: int) -> dict[int, History]:
        """See the port."""
        found = await self._select(
            f"SELECT batch, {rows.HISTORY_COLUMNS} FROM histories, (SELECT key FROM jobs WHERE job_id = :job_id)"  # noqa: S608  # constants
            " WHERE job = key AND batch >= :first AND batch < :end",
            {"job_id": job_id, "first": first_index, "end": end_index},
        )
        return {batch: rows.history_of(columns) for batch, *columns in found}

    async def next_piece(self, job_id: str, offset: int) -> bytes:
        """See the port."""
        found = await self._select(
            "SELECT substr(bytes, :offset - start + 1) FROM input, (SELECT key FROM jobs WHERE job_id = :job_id)"
            " WHERE job = key AND start <= :offset ORDER BY start DESC LIMIT 1",
            {"job_id": job_id, "offset": offset},
        )
        return b"".join(row[0] for row in found)

    async def open_batches(self, job_id: str, low_water: int) -> OpenBatches:
        """See the port."""
        return await self._readers.run(partial(find_open_batches, job_id=job_id, low_water=low_water))

    # Webhooks

    async def notices(self, limit: int) -> list[tuple[int, str]]:
        """See the port."""
        query = (
            "SELECT due_ns, job_id FROM notices JOIN jobs ON job = key WHERE due_ns IS NOT NULL ORDER BY due_ns LIMIT ?"
        )
        return [(due_ns, job_id) for due_ns, job_id in await self._select(query, (limit,))]

    async def set_notice(self, job_id: str, notice: Notice) -> None:
        """See the port."""
        values = (notice.attempts, notice.due_ns, notice.delivered_ns, notice.error, job_id)
        await self._execute(
            "UPDATE notices SET attempts = ?, due_ns = ?, delivered_ns = ?, error = ?"
            " WHERE job = (SELECT key FROM jobs WHERE job_id = ?)",
            values,
        )

    # Workers

    async def put_worker(self, worker: WorkerRecord) -> None:
        """See the port."""
        await self._execute(
            f"REPLACE INTO workers ({rows.WORKER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  # constants
            (worker.worker_id, worker.job_id, worker.slot, worker.pid, worker.started, worker.detail),
        )

    async def remove_worker(self, worker_id: str) -> None:
        """See the port."""
        await self._execute("DELETE FROM workers WHERE worker_id = ?", (worker_id,))

    async def workers(self, job_id: str | None = None) -> list[WorkerRecord]:
        """See the port."""
        found = await self._select(
            f"SELECT {rows.WORKER_COLUMNS} FROM workers WHERE :job_id IS NULL OR job_id = :job_id"  # noqa: S608  # constants
            " ORDER BY job_id, slot, worker_id",
            {"job_id": job_id},
        )
        return [rows.worker_of(row) for row in found]

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(statement, values)

        await self._writer.submit(operation)

    async def _select(self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        def select(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(query, values).fetchall()

        return await self._readers.run(select)


def _open(path: Path) -> tuple[int, sqlite3.Connection, database.Identity, list[sqlite3.Connection]]:
    lock = database.take_lock(path)
    closers: list[Callable[[], None]] = [partial(os.close, lock)]
    try:
        connection = database.connect(path)
        closers.append(connection.close)
        identity = database.prepare(connection, path)
        reading = []
        for _ in range(READERS):
            reading.append(database.connect_reader(path))
            closers.append(reading[-1].close)
        return lock, connection, identity, reading
    except BaseException as error:
        for close in reversed(closers):
            close()
        if isinstance(error, sqlite3.Error | OSError):
            raise database.explain(error, path) from error
        raise


def _jobs_query(conditions: Sequence[str]) -> str:
    return (
        f"SELECT {rows.JOB_COLUMNS} FROM jobs JOIN submissions ON submissions.job = key"  # noqa: S608  # constants
        " LEFT JOIN notices ON notices.job = key"
        f" WHERE {' AND '.join(conditions)} ORDER BY job_id LIMIT :limit"
    )


def _update_state(connection: sqlite3.Connection, key: int, state: JobState) -> None:
    connection.execute(
        "UPDATE jobs SET status = ?, final = ?, reason = ?, completion_http_status = ?,"
        " completion_error = ?, ended_ns = ? WHERE key = ?",
        (*rows.state_columns(state), key),
    )
    if state.status.final:
        connection.execute(
            "INSERT OR IGNORE INTO notices SELECT job, 0, ?, NULL, '' FROM submissions"
            " WHERE job = ? AND json_extract(options_json, '$.webhook') IS NOT NULL",
            (state.ended_ns or 0, key),
        )
