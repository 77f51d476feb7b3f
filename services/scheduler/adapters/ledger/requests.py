"""Requests that became jobs, so that repeating one is safe."""

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.domain.errors import idempotency_key_reused
from services.scheduler.domain.model.job import JobSpec, RequestKey


def remember_request(connection: Connection, spec: JobSpec, request: RequestKey) -> str | None:
    """Note that a request becomes this job; or the id of the job that it has become already."""
    earlier = requested(connection, spec.api_name, request)
    if earlier is None:
        values = (spec.api_name, request.request_id, request.digest, spec.job_id)
        connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?) ON CONFLICT (api_name, request_id)"
            " DO UPDATE SET digest = excluded.digest, job_id = excluded.job_id",
            values,
        )
    return earlier


def requested(connection: Connection, api_name: str, request: RequestKey) -> str | None:
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
        raise idempotency_key_reused(job_id)
    return job_id


def remember_retry(connection: Connection, spec: JobSpec, earlier_retry: str) -> None:
    """Note with a job that this one runs its failed batches again, if `earlier_retry` was the latest to do so."""
    latest = connection.execute("SELECT retried_by FROM jobs WHERE job_id = ?", (spec.retry_of,)).fetchone()
    if latest != (earlier_retry,):
        text = f"job {spec.retry_of} is being retried already: see its status for the job that does it"
        raise CortexError("job.already_retried", text, Category.CONFLICT)
    connection.execute("UPDATE jobs SET retried_by = ? WHERE job_id = ?", (spec.job_id, spec.retry_of))
