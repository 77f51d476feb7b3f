"""The job specification as containers find it in /cortex/spec/job.json: what the submission was answered."""

import msgspec

from services.common import job_document as common
from services.scheduler.domain.model.job import JobRecord


def job_document(job: JobRecord) -> str:
    """The specification as a JSON object; `config` byte for byte, `total_batch_count` once it is known."""
    spec = job.spec
    queue = spec.dead_letter_queue
    document = common.job_document(
        job_id=spec.job_id,
        api_name=spec.api_name,
        api_id=spec.api_id,
        workers=job.workers,
        config_json=spec.config_json,
        timeout_seconds=spec.timeout_seconds,
        batch_timeout_seconds=spec.batch_timeout_seconds,
        dead_letter_queue=(queue.arn, queue.max_receive_count) if queue is not None else None,
        created_ns=spec.created_ns,
        total_batch_count=job.total_batches,
        retry_of=spec.retry_of,
    )
    return msgspec.json.encode(document).decode()


def webhook_document(job: JobRecord) -> str:
    """What a receiver is told of a job that is over: a JSON object."""
    state, tally = job.state, job.tally
    data = {
        "job_id": job.spec.job_id,
        "api_name": job.spec.api_name,
        "status": state.status.value,
        "reason": state.reason,
        "created_time": common.rfc3339(job.spec.created_ns),
        "end_time": common.rfc3339(state.ended_ns or 0),
        "total_batch_count": job.total_batches,
        "batch_counts": {
            "pending": job.known_batches - tally.batches_final,
            "succeeded": tally.batches_succeeded,
            "failed": tally.batches_failed,
        },
    }
    document = {"type": f"job.{state.status.value}", "timestamp": data["end_time"], "data": data}
    return msgspec.json.encode(document).decode()
