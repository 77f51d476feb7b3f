"""A job's specification as JSON: what a submission is answered, and what containers find in /cortex/spec/job.json.

The gateway makes the one, the scheduler the other, both with `job_document`, so that they are the same to the letter.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec


def job_document(
    *,
    job_id: str,
    api_name: str,
    api_id: str,
    workers: int,
    config_json: str,
    timeout_seconds: int | None,
    batch_timeout_seconds: int | None,
    dead_letter_queue: tuple[str, int] | None,
    created_ns: int,
    total_batch_count: int | None,
    retry_of: str,
) -> dict[str, Any]:
    """The members in their order, for msgspec's encoder. `config_json` goes in byte for byte, `""` as null.

    `dead_letter_queue` is its ARN and `max_receive_count`. Members that Cortex does not know are there only when given
    (`""` for `retry_of`: not given), and `total_batch_count` once it is known.
    """
    created = rfc3339(created_ns)
    document = {
        "job_id": job_id,
        "api_name": api_name,
        "kind": "BatchAPI",
        "workers": workers,
        "config": msgspec.Raw(config_json.encode()) if config_json else None,
        "api_id": api_id,
        "sqs_url": "",  # no queue of SQS carries the job
        "timeout": timeout_seconds,
        "sqs_dead_letter_queue": None,
        "start_time": created,
        "created_time": created,
    }
    if dead_letter_queue is not None:
        arn, max_receive_count = dead_letter_queue
        document["sqs_dead_letter_queue"] = {"arn": arn, "max_receive_count": max_receive_count}
    if batch_timeout_seconds is not None:
        document["batch_timeout"] = batch_timeout_seconds
    if retry_of:
        document["retry_of"] = retry_of
    if total_batch_count is not None:
        document["total_batch_count"] = total_batch_count
    return document


def rfc3339(nanoseconds: int) -> str:
    """A point in time since 1970, in UTC: with as many groups of three digits behind the second as it needs."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
