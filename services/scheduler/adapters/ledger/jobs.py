"""Jobs."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.input import append_pieces, append_segments
from services.scheduler.adapters.ledger.requests import remember_request, remember_retry, requested
from services.scheduler.adapters.ledger.statements import job_key
from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece, Source
from services.scheduler.domain.model.job import (
    Completion,
    Control,
    JobRecord,
    JobSpec,
    JobState,
    JobStatus,
    RequestKey,
    Tally,
    WebhookStatus,
)
from services.scheduler.domain.model.options import DeadLetterQueue, Options

_COLUMNS = (
    "job_id, api_name, jobs.api_id, workers, batch_size, config_json, timeout_seconds,"
    " batch_timeout_seconds, dead_letter_arn, max_receive_count, created_ns, traceparent,"
    " status, reason, completion_http_status, completion_error, ended_ns,"
    " batches_succeeded, batches_failed, batches_split, attempts_succeeded, attempts_failed, succeeded_seconds,"
    " buckets, next_index, input_offset, input_done, input_position, low_water, retry_of, retried_by,"
    " options_json, source_json, workers_now, paused,"
    " webhooks.attempts, due_ns, delivered_ns, error"
)


class JobTables(Tables):
    """See `JobLedger`."""

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
            *(spec.created_ns, spec.traceparent, *_state_columns(state)),
            *tally_columns(Tally()),
            *(0, cursor.offset, cursor.done, cursor.position, 0, spec.retry_of),
        )
        submission = (
            spec.config_json,
            msgspec.json.encode(spec.options).decode(),
            msgspec.json.encode(spec.source).decode(),
            spec.options.webhook is not None,
        )
        stream = [piece for piece in pieces if piece]

        def operation(connection: Connection) -> str:
            if request is not None and (earlier := remember_request(connection, spec, request)):
                return earlier
            if spec.retry_of:
                remember_retry(connection, spec, earlier_retry)
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
            key = job_key(connection, spec.job_id)
            connection.execute("INSERT INTO submissions VALUES (?, ?, ?, ?, ?)", (key, *submission))
            append_pieces(connection, key, stream)
            append_segments(connection, key, 0, segments)
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
        return await self._readers.run(lambda connection: requested(connection, api_name, request))

    async def set_state(self, job_id: str, state: JobState) -> None:
        """See the port."""

        def operation(connection: Connection) -> None:
            key = job_key(connection, job_id)
            connection.execute(
                "UPDATE jobs SET status = ?, final = ?, reason = ?, completion_http_status = ?,"
                " completion_error = ?, ended_ns = ? WHERE key = ?",
                (*_state_columns(state), key),
            )
            if state.status.final:
                connection.execute(
                    "INSERT INTO webhooks SELECT job, 0, ?, NULL, '' FROM submissions"
                    " WHERE job = ? AND webhook = 1 ON CONFLICT DO NOTHING",
                    (state.ended_ns or 0, key),
                )

        await self._writer.submit(operation)

    async def set_control(self, job_id: str, control: Control) -> None:
        """See the port."""
        await self._execute(
            "UPDATE jobs SET workers_now = ?, paused = ? WHERE job_id = ?", (control.workers, control.paused, job_id)
        )

    async def job(self, job_id: str) -> JobRecord | None:
        """See the port."""
        found = await self._select(_jobs_query(["job_id = :job_id"]), {"job_id": job_id, "limit": 1})
        return _job_of(found[0]) if found else None

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
        return [_job_of(row) for row in await self._select(_jobs_query(conditions), values)]


def _job_of(row: Sequence[Any]) -> JobRecord:
    """From _COLUMNS."""
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
        None if row[35] is None else WebhookStatus(*row[35:]),
    )


def _state_columns(state: JobState) -> tuple[Any, ...]:
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


def _jobs_query(conditions: Sequence[str]) -> str:
    return (
        f"SELECT {_COLUMNS} FROM jobs JOIN submissions ON submissions.job = key"  # noqa: S608  # constants
        " LEFT JOIN webhooks ON webhooks.job = key"
        f" WHERE {' AND '.join(conditions)} ORDER BY job_id LIMIT :limit"
    )
