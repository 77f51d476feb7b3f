"""A job as the status of its resource, with the names that it has over HTTP."""

from typing import Any

from cortex.batch.v1.resources_pb2 import BatchCounts, Job, WebhookDelivery, WorkerCounts
from services.common.errors import CortexError
from services.common.job_document import rfc3339
from services.common.kubernetes import Object
from services.controller.resources import condition, status_of

_FINAL = range(Job.STATUS_SUCCEEDED, Job.STATUS_UNEXPECTED_ERROR + 1)
_ENDS = ("Complete", "Failed")
REFUSED = "refused"
"""The status of what did not become a job."""
UNKNOWN = "unknown"
"""The status of a job that the scheduler does not know any more."""


def is_final(job: Job) -> bool:
    """Whether the job is over."""
    return job.status in _FINAL


def status_name(job: Job) -> str:
    """What people read, such as `running`."""
    return Job.Status.Name(job.status).removeprefix("STATUS_").lower()


def is_finished(resource: Object) -> bool:
    """Whether a resource says that its job is over."""
    return any(each["type"] in _ENDS for each in status_of(resource).get("conditions", ()))


def lost_status(resource: Object, error: CortexError) -> Object:
    """The whole status of a job that the scheduler does not know."""
    status = status_of(resource)
    accepted = [each for each in status["conditions"] if each["type"] not in _ENDS]
    ended = {"end_time": status.get("created_time", ""), "reason": error.message, "status": UNKNOWN}
    return {
        **status,
        **ended,
        "conditions": [*accepted, condition(resource, "Failed", True, error.kind, error.message)],
    }


def job_status(resource: Object, job: Job, accepted: Object, submission: Object) -> Object:
    """The whole status. `accepted` is the condition about the present spec, `submission` what was submitted."""
    status: Object = {
        "observedGeneration": accepted["observedGeneration"],
        "submission": submission,
        "job_id": job.job_id,
        "api_id": job.api_id,
        "status": status_name(job),
        "workers": job.workers,
        "batch_counts": _counts(job.batch_counts),
        "created_time": rfc3339(job.created_time.ToNanoseconds()),
        "trace_id": job.trace_id,
        "conditions": [accepted, *_end(resource, job)],
    }
    if job.HasField("total_batch_count"):
        status["total_batch_count"] = job.total_batch_count
    if job.HasField("worker_counts"):
        status["worker_counts"] = {name: count for name, count in _counts(job.worker_counts).items() if count}
    if job.HasField("progress"):
        status["progress"] = _progress(job)
    if job.HasField("end_time"):
        status["end_time"] = rfc3339(job.end_time.ToNanoseconds())
    if job.HasField("completion"):
        status["completion"] = {"http_status": job.completion.http_status, "error": job.completion.error}
    if job.HasField("webhook"):
        status["webhook"] = _webhook(job.webhook)
    if job.reason:
        status["reason"] = job.reason
    if job.paused:
        status["paused"] = True
    return status


def _end(resource: Object, job: Job) -> list[Object]:
    """As Kubernetes' own jobs tell it, so that `kubectl wait --for=condition=Complete` works."""
    if not is_final(job):
        return []
    kind = "Complete" if job.status == Job.STATUS_SUCCEEDED else "Failed"
    return [condition(resource, kind, True, status_name(job), job.reason)]


def _progress(job: Job) -> dict[str, Any]:
    found = {"batches_per_second": job.progress.batches_per_second}
    return found | ({"eta_seconds": job.progress.eta_seconds} if job.progress.HasField("eta_seconds") else {})


def _webhook(delivery: WebhookDelivery) -> dict[str, Any]:
    found: dict[str, Any] = {"attempts": delivery.attempts, "error": delivery.error}
    if delivery.HasField("delivered_time"):
        found["delivered_time"] = rfc3339(delivery.delivered_time.ToNanoseconds())
    return found


def _counts(counts: BatchCounts | WorkerCounts) -> dict[str, int]:
    return {field.name: getattr(counts, field.name) for field in counts.DESCRIPTOR.fields}
