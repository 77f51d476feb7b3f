"""A job as the contract's JSON: the answer to a submission, and a job's status.

Integers stay integers, because a Go program decodes them strictly. `config` and the API's specification go in as the
text that they are.
"""

from typing import Any

import msgspec

from cortex.batch.v1.resources_pb2 import (
    Batch,
    BatchApi,
    BatchCounts,
    Job,
    JobMetrics,
    JobProgress,
    RetryPolicy,
    WebhookDelivery,
    WorkerCounts,
    WorkerScaling,
)
from services.common.batch_document import batch_document, reply_document
from services.common.job_document import Retries, job_document, rfc3339


def submitted(job: Job, warnings: list[str]) -> dict[str, Any]:
    """The answer to a submission."""
    return _specification(job) | ({"warnings": warnings} if warnings else {})


def answer(job: Job, api: BatchApi, public_url: str) -> dict[str, Any]:
    """The answer to a GET of a job."""
    return {
        "job_status": status(job),
        "endpoint": f"{public_url}{api.endpoint}?jobID={job.job_id}",
        "api_spec": msgspec.Raw(api.spec_json.encode()),
        "metrics": _metrics(job.metrics),
    }


def status(job: Job) -> dict[str, Any]:
    """What became of a job, and what it was."""
    counts = job.batch_counts
    found = _specification(job) | {
        "status": Job.Status.Name(job.status).removeprefix("STATUS_").lower().replace("unspecified", "unknown"),
        "batches_in_queue": counts.pending + counts.leased,
        "batch_counts": _all_counts(counts),
        "trace_id": job.trace_id,
    }
    if job.status == Job.STATUS_RUNNING and job.HasField("worker_counts"):
        found["worker_counts"] = {name: count for name, count in _all_counts(job.worker_counts).items() if count}
    if job.HasField("end_time"):
        found["end_time"] = rfc3339(job.end_time.ToNanoseconds())
    if job.reason:
        found["reason"] = job.reason
    if job.retried_by:
        found["retried_by"] = job.retried_by
    if job.HasField("completion"):
        found["completion"] = {"http_status": job.completion.http_status, "error": job.completion.error}
    if job.HasField("webhook"):
        found["webhook"] = _webhook(job.webhook)
    if job.paused:
        found["paused"] = True
    if job.status == Job.STATUS_RUNNING and job.HasField("progress"):
        found["progress"] = _progress(job.progress)
    return found


def batch(batch: Batch) -> dict[str, Any]:
    """A batch."""
    return batch_document(
        index=batch.index,
        state=Batch.State.Name(batch.state).removeprefix("STATE_").lower(),
        attempts=batch.attempts,
        http_status=batch.http_status,
        error=batch.error,
        ended_ns=batch.time.ToNanoseconds() if batch.HasField("time") else None,
        items=batch.items_json.encode(),
    )


def reply(batch: Batch) -> dict[str, Any]:
    """What the container answered to a batch."""
    return reply_document(batch.index, batch.reply_json.encode())


def _specification(job: Job) -> dict[str, Any]:
    queue = job.dead_letter_queue
    return job_document(
        job_id=job.job_id,
        api_name=job.api_name,
        api_id=job.api_id,
        workers=job.workers,
        config_json=job.config_json,
        timeout_seconds=job.timeout_seconds if job.HasField("timeout_seconds") else None,
        batch_timeout_seconds=job.batch_timeout_seconds if job.HasField("batch_timeout_seconds") else None,
        dead_letter_queue=(queue.arn, queue.max_receive_count) if job.HasField("dead_letter_queue") else None,
        created_ns=job.created_time.ToNanoseconds(),
        total_batch_count=job.total_batch_count if job.HasField("total_batch_count") else None,
        retry_of=job.retry_of,
        retries=_retries(job.retries) if job.HasField("retries") else None,
        split_failed=job.split_failed,
        results_s3_path=job.results.s3_path if job.HasField("results") else None,
        worker_scaling=_scaling(job.worker_scaling) if job.HasField("worker_scaling") else None,
        max_failed_percent=job.max_failed_percent if job.HasField("max_failed_percent") else None,
        webhook_url=job.webhook.url,
        queue_name=job.queue_name,
    )


def _retries(policy: RetryPolicy) -> Retries:
    return Retries(
        max_attempts=policy.max_attempts if policy.HasField("max_attempts") else None,
        backoff_seconds=policy.backoff_seconds if policy.HasField("backoff_seconds") else None,
        max_backoff_seconds=policy.max_backoff_seconds if policy.HasField("max_backoff_seconds") else None,
        on=policy.on,
    )


def _scaling(scaling: WorkerScaling) -> tuple[int | None, int | None]:
    return (
        scaling.batches_per_worker if scaling.HasField("batches_per_worker") else None,
        scaling.max_workers if scaling.HasField("max_workers") else None,
    )


def _webhook(delivery: WebhookDelivery) -> dict[str, Any]:
    return {
        "url": delivery.url,
        "attempts": delivery.attempts,
        "delivered_time": rfc3339(delivery.delivered_time.ToNanoseconds())
        if delivery.HasField("delivered_time")
        else None,
        "error": delivery.error,
    }


def _progress(progress: JobProgress) -> dict[str, Any]:
    return {
        "batches_per_second": progress.batches_per_second,
        "eta_seconds": progress.eta_seconds if progress.HasField("eta_seconds") else None,
    }


def _metrics(metrics: JobMetrics) -> dict[str, Any]:
    average = metrics.succeeded_seconds / metrics.succeeded if metrics.succeeded else None
    return {
        "succeeded": metrics.succeeded,
        "failed": metrics.failed,
        "average_time_per_batch": average,
        "avg_time_per_batch": average,
    }


def _all_counts(counts: BatchCounts | WorkerCounts) -> dict[str, int]:
    return {field.name: getattr(counts, field.name) for field in counts.DESCRIPTOR.fields}
