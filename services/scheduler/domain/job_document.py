"""The job specification as containers find it in /cortex/spec/job.json: what the submission was answered."""

from datetime import UTC, datetime

import msgspec

from services.scheduler.domain.model import JobRecord


def job_document(job: JobRecord) -> str:
    """The specification as a JSON object; `config` byte for byte, `total_batch_count` once it is known."""
    spec = job.spec
    created = datetime.fromtimestamp(spec.created_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")
    queue = spec.dead_letter_queue
    document = {
        "job_id": spec.job_id,
        "api_name": spec.api_name,
        "kind": "BatchAPI",
        "workers": spec.workers,
        "config": msgspec.Raw(spec.config_json.encode() or b"null"),
        "api_id": spec.api_id,
        "sqs_url": "",
        "timeout": spec.timeout_seconds,
        "sqs_dead_letter_queue": (
            {"arn": queue.arn, "max_receive_count": queue.max_receive_count} if queue is not None else None
        ),
        "start_time": created,
        "created_time": created,
    }
    if job.state.total_batches is not None:
        document["total_batch_count"] = job.state.total_batches
    return msgspec.json.encode(document).decode()
