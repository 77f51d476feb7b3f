"""A job as JSON: which keys, and which only sometimes."""

import json
from typing import Any

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1.resources_pb2 import (
    BatchApi,
    BatchCounts,
    DeadLetterQueue,
    Job,
    JobCompletion,
    JobMetrics,
    JobProgress,
    Results,
    RetryPolicy,
    WebhookDelivery,
    WorkerCounts,
    WorkerScaling,
)
from services.gateway import job_json

SUBMITTED = {
    "job_id": "69a1b2c3d4e5f607",
    "api_name": "digits",
    "kind": "BatchAPI",
    "workers": 2,
    "config": None,
    "api_id": "v1",
    "sqs_url": "",
    "timeout": None,
    "sqs_dead_letter_queue": None,
    "start_time": "2023-11-14T22:13:20.123Z",
    "created_time": "2023-11-14T22:13:20.123Z",
}


def job(**fields: Any) -> Job:
    created = Timestamp(seconds=1_700_000_000, nanos=123_000_000)
    return Job(job_id="69a1b2c3d4e5f607", api_name="digits", api_id="v1", workers=2, created_time=created, **fields)


def encoded(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_a_submission_is_answered_with_all_its_keys() -> None:
    assert encoded(job_json.submitted(job(), [])) == SUBMITTED


def test_a_job_and_its_retry_name_each_other() -> None:
    assert encoded(job_json.submitted(job(retry_of="69a1"), [])) == SUBMITTED | {"retry_of": "69a1"}
    assert encoded(job_json.status(job(retried_by="69a0")))["retried_by"] == "69a0"
    assert "retried_by" not in job_json.status(job())


def test_what_was_given_comes_back() -> None:
    queue = DeadLetterQueue(arn="arn:q", max_receive_count=3)
    submitted = job(config_json='{"a": 1.0}', timeout_seconds=60, batch_timeout_seconds=5, dead_letter_queue=queue)
    text = msgspec.json.encode(job_json.submitted(submitted, ["zz: unknown field, ignored"]))
    assert b'"config":{"a": 1.0}' in text
    assert json.loads(text) == SUBMITTED | {
        "config": {"a": 1.0},
        "timeout": 60,
        "batch_timeout": 5,
        "sqs_dead_letter_queue": {"arn": "arn:q", "max_receive_count": 3},
        "warnings": ["zz: unknown field, ignored"],
    }


def test_what_goes_beyond_cortex_comes_back_when_it_was_given() -> None:
    policy = RetryPolicy(max_attempts=3, backoff_seconds=2, max_backoff_seconds=0.5, on=[500, 503])
    submitted = job(
        retries=policy,
        split_failed=True,
        results=Results(s3_path="s3://b/r"),
        worker_scaling=WorkerScaling(batches_per_worker=100, max_workers=8),
        max_failed_percent=10,
        webhook=WebhookDelivery(url="https://x/y"),
    )
    text = msgspec.json.encode(job_json.submitted(submitted, []))
    assert json.loads(text) == SUBMITTED | {
        "retries": {"max_attempts": 3, "backoff_seconds": 2, "max_backoff_seconds": 0.5, "on": [500, 503]},
        "split_failed": True,
        "results": {"s3_path": "s3://b/r"},
        "worker_scaling": {"batches_per_worker": 100, "max_workers": 8},
        "max_failed_percent": 10,
        "webhook": {"url": "https://x/y"},
    }
    assert b'"backoff_seconds":2,' in text, "as it was written"
    partly = job(retries=RetryPolicy(max_attempts=2), results=Results())
    assert encoded(job_json.submitted(partly, [])) == SUBMITTED | {"retries": {"max_attempts": 2}, "results": True}


def test_a_paused_job_its_pace_and_its_webhook() -> None:
    webhook = WebhookDelivery(url="https://x/y", attempts=2, error="status 500")
    status = job_json.status(
        job(
            status=Job.STATUS_RUNNING,
            paused=True,
            progress=JobProgress(batches_per_second=12.5, eta_seconds=60),
            webhook=webhook,
        )
    )
    assert status["paused"] is True
    assert status["progress"] == {"batches_per_second": 12.5, "eta_seconds": 60}
    told = {"url": "https://x/y", "attempts": 2, "delivered_time": None, "error": "status 500"}
    assert status["webhook"] == told
    webhook.delivered_time.CopyFrom(Timestamp(seconds=1_700_000_060))
    over = job_json.status(job(status=Job.STATUS_SUCCEEDED, webhook=webhook, progress=JobProgress()))
    assert over["webhook"]["delivered_time"] == "2023-11-14T22:14:20Z"
    assert not {"paused", "progress"} & set(over)
    unsure = job(status=Job.STATUS_RUNNING, progress=JobProgress(batches_per_second=0))
    assert job_json.status(unsure)["progress"] == {"batches_per_second": 0, "eta_seconds": None}


def test_the_status_of_a_running_job() -> None:
    status = job_json.status(
        job(
            status=Job.STATUS_RUNNING,
            trace_id="ab",
            total_batch_count=10,
            batch_counts=BatchCounts(pending=4, leased=3, succeeded=2, failed=1),
            worker_counts=WorkerCounts(ready=1, not_ready=1),
        )
    )
    assert encoded(status) == SUBMITTED | {
        "status": "running",
        "total_batch_count": 10,
        "batches_in_queue": 7,
        "batch_counts": {"pending": 4, "leased": 3, "succeeded": 2, "failed": 1},
        "worker_counts": {"ready": 1, "not_ready": 1},
        "trace_id": "ab",
    }


def test_before_its_first_worker_a_job_counts_none() -> None:
    status = job_json.status(job(status=Job.STATUS_ENQUEUING, worker_counts=WorkerCounts(creating=1)))
    assert "worker_counts" not in status


def test_the_status_of_a_job_that_is_over() -> None:
    status = job_json.status(
        job(
            status=Job.STATUS_WORKER_OOM,
            end_time=Timestamp(seconds=1_700_000_060),
            reason="out of memory",
            worker_counts=WorkerCounts(killed=1),
            completion=JobCompletion(http_status=500, error="status 500"),
        )
    )
    assert status["status"] == "worker_oom"
    assert status["end_time"] == "2023-11-14T22:14:20Z"
    assert status["reason"] == "out of memory"
    assert status["completion"] == {"http_status": 500, "error": "status 500"}
    assert "worker_counts" not in status
    assert "total_batch_count" not in status


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (Job.STATUS_UNSPECIFIED, "unknown"),
        (Job.STATUS_PENDING, "pending"),
        (Job.STATUS_ENQUEUING, "enqueuing"),
        (Job.STATUS_RUNNING, "running"),
        (Job.STATUS_SUCCEEDED, "succeeded"),
        (Job.STATUS_ENQUEUE_FAILED, "enqueue_failed"),
        (Job.STATUS_COMPLETED_WITH_FAILURES, "completed_with_failures"),
        (Job.STATUS_WORKER_ERROR, "worker_error"),
        (Job.STATUS_WORKER_OOM, "worker_oom"),
        (Job.STATUS_TIMED_OUT, "timed_out"),
        (Job.STATUS_STOPPED, "stopped"),
        (Job.STATUS_UNEXPECTED_ERROR, "unexpected_error"),
    ],
)
def test_every_status_has_its_name(status: Job.Status.ValueType, name: str) -> None:
    assert job_json.status(job(status=status))["status"] == name


def test_a_job_is_answered_with_its_api_and_metrics() -> None:
    api = BatchApi(name="digits", endpoint="/my/digits", spec_json='{"big":12345678901234567890,"one":1.0}')
    metrics = JobMetrics(succeeded=4, failed=1, succeeded_seconds=2.0)
    text = msgspec.json.encode(job_json.answer(job(metrics=metrics), api, "http://here:1"))
    assert b'"api_spec":{"big":12345678901234567890,"one":1.0}' in text
    answer = json.loads(text)
    assert set(answer) == {"job_status", "endpoint", "api_spec", "metrics"}
    assert answer["endpoint"] == "http://here:1/my/digits?jobID=69a1b2c3d4e5f607"
    assert answer["metrics"] == {
        "succeeded": 4,
        "failed": 1,
        "average_time_per_batch": 0.5,
        "avg_time_per_batch": 0.5,
    }


def test_without_a_success_there_is_no_average() -> None:
    metrics = job_json.answer(job(metrics=JobMetrics(failed=1)), BatchApi(spec_json="{}"), "")["metrics"]
    assert metrics["average_time_per_batch"] is None
    assert metrics["avg_time_per_batch"] is None
