"""A job's specification as JSON: what a submission is answered, and what containers find in /cortex/spec/job.json.

The gateway makes the one, the scheduler the other, both with `job_document`, so that they are the same to the letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Retries:
    """A job's `retries`. None, and no statuses: not given."""

    max_attempts: int | None = None
    backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    on: Sequence[int] = ()


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
    retries: Retries | None = None,
    split_failed: bool = False,
    results_s3_path: str | None = None,
    worker_scaling: tuple[int | None, int | None] | None = None,
    max_failed_percent: float | None = None,
    webhook_url: str = "",
    queue_name: str = "",
) -> dict[str, Any]:
    """The members in their order, for msgspec's encoder. `config_json` goes in byte for byte, `""` as null.

    `dead_letter_queue` is its ARN and `max_receive_count`, `worker_scaling` its `batches_per_worker` and `max_workers`,
    and `results_s3_path` is `""` where replies are kept and written nowhere else. Members that Cortex does not know are
    there only when given (`""` for `retry_of`, `webhook_url` and `queue_name`: not given), and `total_batch_count` once
    it is known.
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
    if retries is not None:
        document["retries"] = _retries(retries)
    if split_failed:
        document["split_failed"] = True
    if results_s3_path is not None:
        document["results"] = {"s3_path": results_s3_path} if results_s3_path else True
    if worker_scaling is not None:
        document["worker_scaling"] = _given(batches_per_worker=worker_scaling[0], max_workers=worker_scaling[1])
    if max_failed_percent is not None:
        document["max_failed_percent"] = _number(max_failed_percent)
    if webhook_url:
        document["webhook"] = {"url": webhook_url}
    if queue_name:
        document["queue_name"] = queue_name
    if retry_of:
        document["retry_of"] = retry_of
    if total_batch_count is not None:
        document["total_batch_count"] = total_batch_count
    return document


def _retries(retries: Retries) -> dict[str, Any]:
    seconds = {"backoff_seconds": retries.backoff_seconds, "max_backoff_seconds": retries.max_backoff_seconds}
    written = {name: None if value is None else _number(value) for name, value in seconds.items()}
    return _given(max_attempts=retries.max_attempts, **written, on=list(retries.on) or None)


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _number(value: float) -> int | float:
    """Whole numbers as people write them: without a fraction."""
    return int(value) if value.is_integer() else value


def rfc3339(nanoseconds: int) -> str:
    """A point in time since 1970, in UTC: with as many groups of three digits behind the second as it needs."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
