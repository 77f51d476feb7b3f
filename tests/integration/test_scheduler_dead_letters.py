"""Batches that are given up and go to a real queue, over the scheduler's real wire and its real ledger."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from services.common.errors import CortexError
from services.common.grpc_errors import from_rpc_error
from services.scheduler.usecases.running import giving_up
from tests.integration import sqs_kit
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler
from tests.integration.sqs_kit import Sqs, values

Batch = resources_pb2.Batch


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture(scope="module")
def server() -> Iterator[Sqs]:
    with sqs_kit.ministack() as running:
        yield running


@pytest.fixture
def sqs(server: Sqs, monkeypatch: pytest.MonkeyPatch) -> Sqs:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(giving_up, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(giving_up, "LONGEST_PAUSE_SECONDS", 0.05)
    return server


def request(arn: str, items: str, batch_size: int, receives: int) -> pb.SubmitJobRequest:
    made = pb.SubmitJobRequest(api_name="hello", workers=1)
    made.item_list.items_json = items
    made.item_list.batch_size = batch_size
    made.sqs_dead_letter_queue.arn = arn
    made.sqs_dead_letter_queue.max_receive_count = receives
    made.retries.backoff_seconds = 0.0
    return made


async def begin(kit: Kit, asked: pb.SubmitJobRequest) -> tuple[str, ScriptedWorker]:
    await kit.deploy()
    job = (await kit.batch.SubmitJob(asked)).job
    worker = await kit.worker()
    await worker.open(credit=64)
    return job.job_id, worker


async def work(worker: ScriptedWorker, bad: bytes) -> None:
    """Fail what holds this, succeed with the rest, to the end."""
    while not worker.complete.is_set():
        await worker.until(lambda: bool(worker.leases) or worker.complete.is_set())
        for lease in list(worker.leases.values()):
            await worker.send(worker.result(lease, ok=bad not in lease.payload))
    await worker.answer_completion()


@pytest.mark.parametrize("name", ["dead", "dead.fifo"])
async def test_a_batch_goes_to_the_queue_unchanged_after_its_last_attempt(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs, name: str
) -> None:
    arn = sqs.create(name)
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, request(arn, '[1.0, {"a":1,"a":2}, 3, 4]', 2, 3))
        await work(worker, b'"a"')
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
        assert (job.batch_counts.succeeded, job.batch_counts.failed, job.metrics.failed) == (1, 1, 3)
        assert job.reason == "1 batch failed, such as batch 0: the container answered 500"
    [message] = sqs.messages(arn)
    assert message["Body"] == '[1.0,{"a":1,"a":2}]'
    assert values(message) == {
        "job_id": job_id,
        "api_name": "hello",
        "batch_index": "0",
        "attempts": "3",
        "last_error": "the container answered 500",
        "http_status": "500",
    }


async def test_with_halving_only_the_bad_items_go_to_the_queue(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs
) -> None:
    arn = sqs.create("items")
    asked = request(arn, json.dumps([*range(10, 50)]), 16, 1)
    asked.split_failed = True
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, asked)
        await work(worker, b"7")
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.batch_counts.failed == 4
        assert job.total_batch_count == job.batch_counts.succeeded + 4
    assert sorted(message["Body"] for message in sqs.messages(arn)) == ["[17]", "[27]", "[37]", "[47]"]


async def test_a_queue_is_looked_for_before_a_job_is_accepted(tmp_path: Path, driver: ScriptedDriver, sqs: Sqs) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        missing = f"arn:aws:sqs:us-west-2:{sqs.account}:missing"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kit.batch.SubmitJob(request(missing, "[1]", 1, 1))
        error = from_rpc_error(caught.value)
        assert isinstance(error, CortexError)
        assert error.kind == "aws.queue_not_found"
        assert not (await kit.batch.ListJobs(pb.ListJobsRequest())).jobs


async def test_a_request_that_is_sent_again_finds_its_job_also_without_the_queue(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs
) -> None:
    arn = sqs.create("short")
    asked = request(arn, "[1]", 1, 1)
    asked.request_id = "once"
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job = (await kit.batch.SubmitJob(asked)).job
        sqs.delete(arn)
        assert (await kit.batch.SubmitJob(asked)).job.job_id == job.job_id


async def test_a_batch_is_safe_while_its_queue_is_away_also_over_a_restart(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs
) -> None:
    arn = sqs.create("away")
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, request(arn, "[1]", 1, 1))
        [lease] = await worker.lease(1)
        sqs.delete(arn)
        await worker.send(worker.result(lease, ok=False))
        job = await kit.until(job_id, lambda job: bool(job.reason))
        assert job.reason.startswith(f"batch 0 cannot be sent to the dead letter queue: there is no queue {arn}")
        assert (job.batch_counts.leased, job.batch_counts.failed, job.metrics.failed) == (1, 0, 1)
        await worker.close()
    async with scheduler(tmp_path, driver) as kit:
        await worker.open(held=[lease])
        await worker.welcome.wait()
        assert worker.dropped == {lease.epoch}, "it is not delivered again"
        job = await kit.until(job_id, lambda job: bool(job.reason))
        sqs.create("away")
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.failed, job.metrics.failed) == (1, 1)
        assert not worker.leases
    [message] = sqs.messages(arn)
    assert values(message)["last_error"] == "the container answered 500"


async def test_what_a_queue_will_never_take_is_kept_with_the_reason(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs
) -> None:
    arn = sqs.create("small", MaximumMessageSize="1024")
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, request(arn, json.dumps(["x" * 2000]), 1, 1))
        await work(worker, b"x")
        await kit.until(job_id, lambda job: job.HasField("end_time"))
        found = await kit.batch.ListBatches(pb.ListBatchesRequest(api_name="hello", job_id=job_id))
        [batch] = found.batches
        assert batch.state == Batch.STATE_FAILED
        assert len(batch.items_json) == 2004
        assert batch.error.startswith(
            "the container answered 500; it is kept here, for it could not be sent to the dead"
        )
        assert "must be shorter than 1024 bytes" in batch.error
    assert sqs.messages(arn) == []


async def test_a_batch_that_lost_its_workers_goes_to_the_queue_too(
    tmp_path: Path, driver: ScriptedDriver, sqs: Sqs
) -> None:
    arn = sqs.create("lost")
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, request(arn, "[1]", 1, 5))
        for _ in range(3):
            [lease] = await worker.lease(1)
            await worker.give_back(lease, lost=True)
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.failed, job.metrics.failed) == (1, 0)
    [message] = sqs.messages(arn)
    assert values(message) == {
        "job_id": job_id,
        "api_name": "hello",
        "batch_index": "0",
        "attempts": "0",
        "last_error": "3 workers were lost while they had this batch",
        "http_status": "0",
    }


async def test_a_job_may_be_stopped_while_its_queue_is_away(tmp_path: Path, driver: ScriptedDriver, sqs: Sqs) -> None:
    arn = sqs.create("gone")
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, request(arn, "[1]", 1, 1))
        [lease] = await worker.lease(1)
        sqs.delete(arn)
        await worker.send(worker.result(lease, ok=False))
        await kit.until(job_id, lambda job: bool(job.reason))
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        job = await kit.job(job_id)
        assert (job.status, job.batch_counts.pending, job.batch_counts.failed) == (Job.STATUS_STOPPED, 1, 0)
