"""How the values of `domain/model` lie in the tables, both ways.

Python's sqlite3 gives up the interpreter's lock at every step of a statement, and beside a busy event loop it is a
while before it gets it back (up to 5 ms). So what is many rows to us is one step here: `insert_rows` binds up to a
thousand rows to one statement.
"""

import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState, Cursor, History, Outcome, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece, Reference, Source, StoredObject
from services.scheduler.domain.model.job import (
    Completion,
    Control,
    JobRecord,
    JobSpec,
    JobState,
    JobStatus,
    Notice,
    RequestKey,
    Tally,
)
from services.scheduler.domain.model.options import DeadLetterQueue, Options
from services.scheduler.domain.model.worker import WorkerRecord

MAX_ROWS_AT_ONCE = 1024
"""Rows in one statement; with 8 columns well below SQLite's limit of 32,766 parameters."""

REPLY_BYTES_AT_ONCE = 1024 * 1024
"""Kept replies in one statement, unless a single one is larger."""

FINAL_STATES = (BatchState.FAILED, BatchState.SUCCEEDED, BatchState.SPLIT)
STATE_NUMBERS = {state: number for number, state in enumerate(FINAL_STATES)}
"""How an outcome's state lies in its table."""

API_COLUMNS = "name, api_id, endpoint, spec_json, deployed_ns"
HISTORY_COLUMNS = "attempts, losses, epoch, http_status, error, given_up"
REFERENCE_COLUMNS = "uri, size, tag, object_start, length, checksum"
WORKER_COLUMNS = "worker_id, job_id, slot, pid, started, detail"
JOB_COLUMNS = (
    "job_id, api_name, jobs.api_id, workers, batch_size, config_json, timeout_seconds,"
    " batch_timeout_seconds, dead_letter_arn, max_receive_count, created_ns, traceparent,"
    " status, reason, completion_http_status, completion_error, ended_ns,"
    " batches_succeeded, batches_failed, batches_split, attempts_succeeded, attempts_failed, succeeded_seconds,"
    " buckets, next_index, input_offset, input_done, input_position, low_water, retry_of, retried_by,"
    " options_json, source_json, workers_now, paused,"
    " notices.attempts, due_ns, delivered_ns, error"
)


def insert_rows(
    connection: sqlite3.Connection,
    into: str,
    key: int,
    rows: Sequence[tuple[Any, ...]],
    at_once: int = MAX_ROWS_AT_ONCE,
) -> None:
    """Insert a job's rows (`into` ends in the table's name) in few steps. The job's key is their first column.

    Chunks are powers of two, so that few statements are parsed.
    """
    done = 0
    while done < len(rows):
        size = min(at_once, 1 << (len(rows) - done).bit_length() - 1)
        chunk = chain.from_iterable(rows[done : done + size])
        connection.execute(_insert_text(into, len(rows[done]), size), (key, *chunk))
        done += size


@lru_cache
def _insert_text(into: str, columns: int, rows: int) -> str:
    row = f"(?1{', ?' * columns})"
    return f"INSERT {into} VALUES {', '.join([row] * rows)}"  # noqa: S608  # constants and question marks


def job_key(connection: sqlite3.Connection, job_id: str) -> int:
    """What stands for a job in the other tables."""
    row = connection.execute("SELECT key FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise CortexError("ledger.failed", f"the ledger holds no job {job_id}", Category.INTERNAL)
    key: int = row[0]
    return key


def remember_request(connection: sqlite3.Connection, spec: JobSpec, request: RequestKey) -> str | None:
    """Note that a request becomes this job; or the id of the job that it has become already."""
    earlier = requested(connection, spec.api_name, request)
    if earlier is None:
        values = (spec.api_name, request.request_id, request.digest, spec.job_id)
        connection.execute("REPLACE INTO requests VALUES (?, ?, ?, ?)", values)
    return earlier


def requested(connection: sqlite3.Connection, api_name: str, request: RequestKey) -> str | None:
    """The id of the job that a request has become; None for a new one."""
    found = connection.execute(
        "SELECT job_id, digest FROM requests WHERE api_name = ? AND request_id = ?", (api_name, request.request_id)
    ).fetchone()
    if found is None:
        return None
    job_id: str = found[0]
    if not found[1]:
        if connection.execute("SELECT final FROM jobs WHERE job_id = ?", found[:1]).fetchone()[0]:
            return None  # it was never complete
        text = f"a stream of items with this idempotency key is open, into job {job_id}: wait for its end"
        raise CortexError("job.stream_in_progress", text, Category.CONFLICT)
    if found[1] != request.digest:
        text = f"the idempotency key was used for another request, which became job {job_id}: use a new key"
        raise CortexError("job.idempotency_key_reused", text, Category.CONFLICT)
    return job_id


def remember_retry(connection: sqlite3.Connection, spec: JobSpec, earlier_retry: str) -> None:
    """Note with a job that this one runs its failed batches again, if `earlier_retry` was the latest to do so."""
    values = (spec.job_id, spec.retry_of, earlier_retry)
    done = connection.execute("UPDATE jobs SET retried_by = ? WHERE job_id = ? AND retried_by = ?", values)
    if done.rowcount == 0:
        text = f"job {spec.retry_of} is being retried already: see its status for the job that does it"
        raise CortexError("job.already_retried", text, Category.CONFLICT)


def api_of(row: Sequence[Any]) -> ApiVersion:
    """From API_COLUMNS."""
    return ApiVersion(*row)


def worker_of(row: Sequence[Any]) -> WorkerRecord:
    """From WORKER_COLUMNS."""
    return WorkerRecord(*row)


def job_of(row: Sequence[Any]) -> JobRecord:
    """From JOB_COLUMNS."""
    arn, receives, created_ns, traceparent = row[8:12]
    status, reason, completion_status, completion_error, ended_ns = row[12:17]
    next_index, offset, done, position, low_water, retry_of, retried_by, options, source, workers, paused = row[24:35]
    queue = None if arn is None else DeadLetterQueue(arn, receives)
    completion = None if completion_status is None else Completion(completion_status, completion_error)
    asked = msgspec.json.decode(options, type=Options), msgspec.json.decode(source, type=Source | None)
    spec = (*row[:8], queue, created_ns, traceparent, retry_of, *asked)
    tally = (*row[17:23], tuple(msgspec.json.decode(row[23])))
    return JobRecord(
        JobSpec(*spec),
        JobState(JobStatus(status), reason, completion, ended_ns),
        Tally(*tally),
        Cursor(next_index, offset, bool(done), position),
        low_water,
        retried_by,
        Control(workers, bool(paused)),
        None if row[35] is None else Notice(*row[35:]),
    )


def state_columns(state: JobState) -> tuple[Any, ...]:
    """status, final, reason, completion_http_status, completion_error, ended_ns."""
    done = state.completion
    answer = (None, None) if done is None else (done.http_status, done.error)
    return (state.status.value, state.status.final, state.reason, *answer, state.ended_ns)


def tally_columns(tally: Tally) -> tuple[Any, ...]:
    """batches_succeeded, _failed, _split, attempts_succeeded, _failed, succeeded_seconds, buckets."""
    return (
        tally.batches_succeeded,
        tally.batches_failed,
        tally.batches_split,
        tally.attempts_succeeded,
        tally.attempts_failed,
        tally.succeeded_seconds,
        msgspec.json.encode(tally.buckets).decode(),
    )


def append_pieces(connection: sqlite3.Connection, key: int, pieces: Sequence[Piece], at_once: int) -> None:
    """Make a job's item stream longer, `at_once` rows in a statement."""
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
    insert_rows(connection, "INTO input", key, values, at_once)


def _latest_object(connection: sqlite3.Connection, key: int) -> tuple[int, StoredObject | None]:
    row = connection.execute(
        "SELECT number, uri, size, tag FROM objects WHERE job = ? ORDER BY number DESC LIMIT 1", (key,)
    ).fetchone()
    return (row[0], StoredObject(*row[1:])) if row is not None else (0, None)


def piece_of(row: Sequence[Any], start: int = 0) -> PlacedPiece:
    """From `start, bytes` and REFERENCE_COLUMNS. Stored bytes are cut already, to begin at `start` at least."""
    begins, stored, uri, size, tag, object_start, length, checksum = row
    if stored is not None:
        return PlacedPiece(max(begins, start), stored)
    return PlacedPiece(begins, Reference(StoredObject(uri, size, tag), object_start, length, checksum))


def segment_rows(segments: Sequence[Segment]) -> list[tuple[int, int, bytes]]:
    """first_index, start, lengths."""
    return [(segment.first_index, segment.start, segment.lengths.tobytes()) for segment in segments]


def append_segments(connection: sqlite3.Connection, key: int, segments: Sequence[Segment]) -> int:
    """Give segments the job's next free indexes; how many batches there are then."""
    known: int = connection.execute("SELECT next_index FROM jobs WHERE key = ?", (key,)).fetchone()[0]
    more = []
    for segment in segments:
        more.append((known, segment.start, segment.lengths.tobytes()))
        known += len(segment.lengths)
    if more:
        insert_rows(connection, "INTO segments", key, more)
        connection.execute("UPDATE jobs SET next_index = ? WHERE key = ?", (known, key))
    return known


def outcome_of(row: Sequence[Any]) -> Outcome:
    """A batch's end, from `batch, state, attempts, http_status, error, ended_ns`."""
    index, state, attempts, http_status, error, ended_ns = row
    return Outcome(index, FINAL_STATES[state], attempts, http_status, error, ended_ns)


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """batch, state, attempts, http_status, error, ended_ns."""
    return [(o.index, STATE_NUMBERS[o.state], o.attempts, o.http_status, o.error, o.ended_ns) for o in outcomes]


def reply_chunks(outcomes: Sequence[Outcome]) -> list[list[tuple[int, bytes]]]:
    """batch, bytes: kept replies, in chunks to be written by one statement each. SQLite copies what is bound to it."""
    chunks: list[list[tuple[int, bytes]]] = []
    room = 0
    for outcome in outcomes:
        if outcome.reply is None:
            continue
        room -= len(outcome.reply)
        if room < 0 or not chunks:
            chunks.append([])
            room = REPLY_BYTES_AT_ONCE - len(outcome.reply)
        chunks[-1].append((outcome.index, outcome.reply))
    return chunks


def history_rows(histories: Mapping[int, History]) -> list[tuple[Any, ...]]:
    """batch, HISTORY_COLUMNS."""
    return [
        (index, h.attempts, h.losses, h.epoch, h.http_status, h.error, h.given_up) for index, h in histories.items()
    ]


def history_of(row: Sequence[Any]) -> History:
    """From HISTORY_COLUMNS."""
    attempts, losses, epoch, http_status, error, given_up = row
    return History(attempts, losses, epoch, http_status, error, bool(given_up))


def segment_of(row: Sequence[Any]) -> Segment:
    """From first_index, start, lengths."""
    first_index, start, lengths = row
    return Segment(first_index, start, array("I", lengths))
