"""Batches that fail over the scheduler's real wire and its real ledger: attempted again, and halved."""

import json
from pathlib import Path

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2, worker_service_pb2
from services.scheduler.domain import leases
from services.scheduler.usecases.running import restart_budget
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler

Batch = resources_pb2.Batch


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


def request(items: list[object], batch_size: int = 1) -> pb.SubmitJobRequest:
    made = pb.SubmitJobRequest(api_name="hello", workers=1)
    made.item_list.items_json = json.dumps(items)
    made.item_list.batch_size = batch_size
    return made


def retries(made: pb.SubmitJobRequest, max_attempts: int, *on: int, seconds: float = 0.0) -> pb.SubmitJobRequest:
    made.retries.max_attempts = max_attempts
    made.retries.backoff_seconds = seconds
    made.retries.max_backoff_seconds = seconds
    made.retries.on.extend(on)
    return made


async def begin(kit: Kit, asked: pb.SubmitJobRequest, credit: int = 64) -> tuple[str, ScriptedWorker]:
    """Submit a job, and be its worker."""
    await kit.deploy()
    job_id = (await kit.batch.SubmitJob(asked)).job.job_id
    worker = await kit.worker()
    await worker.open(credit=credit)
    return job_id, worker


def failing(lease: worker_service_pb2.Lease, status: int = 500) -> worker_service_pb2.Result:
    return worker_service_pb2.Result(
        batch_index=lease.batch_index,
        epoch=lease.epoch,
        outcome=worker_service_pb2.Result.OUTCOME_FAILED,
        http_status=status,
        error=f"the container answered {status}" if status else "no answer",
    )


async def listed(kit: Kit, job_id: str, *states: Batch.State.ValueType) -> list[Batch]:
    found = await kit.batch.ListBatches(pb.ListBatchesRequest(api_name="hello", job_id=job_id, states=states))
    return list(found.batches)


async def work(worker: ScriptedWorker, bad: set[object]) -> list[list[object]]:
    """Fail what holds a bad item, succeed with the rest, to the end; the batches in the order of their attempts."""
    seen = []
    while not worker.complete.is_set():
        await worker.until(lambda: bool(worker.leases) or worker.complete.is_set())
        for lease in list(worker.leases.values()):
            items = json.loads(lease.payload)
            seen.append(items)
            await worker.send(failing(lease) if bad & set(items) else worker.result(lease))
    await worker.answer_completion()
    return seen


async def test_a_batch_that_fails_is_attempted_again_and_every_failure_counts(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, retries(request([1, 2, 3]), 3))
        seen = await work(worker, {2})
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert sorted(seen) == [[1], [2], [2], [2], [3]]
        assert (job.batch_counts.succeeded, job.batch_counts.failed, job.metrics.failed) == (2, 1, 3)
        assert job.reason == "1 batch failed, such as batch 1: the container answered 500"
        [batch] = await listed(kit, job_id, Batch.STATE_FAILED)
        assert (batch.index, batch.attempts, batch.http_status) == (1, 3, 500)


async def test_a_job_is_not_over_while_a_batch_waits_for_its_next_attempt(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, retries(request([1, 2]), 2, seconds=0.4))
        first, second = await worker.lease(2)
        await worker.send(failing(first), worker.result(second))
        job = await kit.job(job_id)
        assert (job.batch_counts.pending, job.batch_counts.succeeded, job.metrics.failed) == (1, 1, 1)
        assert not worker.complete.is_set()
        [again] = await worker.lease(1)
        assert (again.batch_index, again.attempt) == (0, 2)
        await worker.send(worker.result(again))
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.status, job.metrics.failed) == (Job.STATUS_SUCCEEDED, 1)


async def test_no_fresh_batches_go_out_while_many_wait_for_another_attempt(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "MAX_SET_ASIDE", 3)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await kit.batch.SubmitJob(retries(request([*range(30)]), 2, seconds=0.2))).job.job_id
        worker = await kit.worker()
        await worker.open(credit=1)
        seen = []
        for _ in range(4):
            [lease] = await worker.lease(1)
            seen.append((lease.batch_index, lease.attempt))
            await worker.send(failing(lease))
        assert seen[:3] == [(0, 1), (1, 1), (2, 1)]
        assert seen[3] in [(0, 2), (1, 2), (2, 2)]
        await work(worker, set())
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.succeeded, job.batch_counts.failed, job.metrics.failed) == (29, 1, 4)


async def test_only_listed_statuses_and_missing_answers_are_worth_another_attempt(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, retries(request([503, 400, 0]), 2, 503))
        seen = []
        while not worker.complete.is_set():
            await worker.until(lambda: bool(worker.leases) or worker.complete.is_set())
            for lease in list(worker.leases.values()):
                [status] = json.loads(lease.payload)
                seen.append((status, lease.attempt))
                await worker.send(failing(lease, status))
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert sorted(seen) == [(0, 1), (0, 2), (400, 1), (503, 1), (503, 2)]
        assert (job.batch_counts.failed, job.metrics.failed) == (3, 5)


async def test_attempts_are_remembered_over_a_restart_and_the_wait_is_not(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, retries(request([1]), 2, seconds=3600.0))
        [lease] = await worker.lease(1)
        await worker.send(failing(lease))
        await worker.close()
    async with scheduler(tmp_path, driver) as kit:
        await worker.open()
        [again] = await worker.lease(1)
        assert again.attempt == 2
        await worker.send(failing(again))
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.failed, job.metrics.failed) == (1, 2)


async def test_a_batch_that_keeps_failing_is_halved_until_the_bad_items_are_alone(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    asked = retries(request([*range(20)], batch_size=10), 2)
    asked.split_failed = True
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, asked)
        seen = await work(worker, {3, 17})
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        failed = await listed(kit, job_id, Batch.STATE_FAILED)
        succeeded = await listed(kit, job_id, Batch.STATE_SUCCEEDED)
        split = await listed(kit, job_id, Batch.STATE_SPLIT)
        assert sorted(batch.items_json for batch in failed) == ["[17]", "[3]"]
        items = [item for batch in succeeded for item in json.loads(batch.items_json)]
        assert sorted(items) == [item for item in range(20) if item not in (3, 17)]
        assert [json.loads(batch.items_json) for batch in split[:2]] == [[*range(10)], [*range(10, 20)]]
        assert all(batch.attempts == 2 for batch in split + failed)
        assert job.total_batch_count == job.batch_counts.succeeded + job.batch_counts.failed == len(failed + succeeded)
        assert job.metrics.failed == sum(bool({3, 17} & set(items)) for items in seen) == 2 * len(split + failed)
        assert not [batch for batch in await listed(kit, job_id) if batch.state == Batch.STATE_SPLIT]
        assert json.loads(driver.job_specs[-1])["total_batch_count"] == job.total_batch_count


async def test_an_item_that_kills_containers_is_found_by_halving(tmp_path: Path, driver: ScriptedDriver) -> None:
    asked = request(["poison", 1, 2, 3], batch_size=4)
    asked.split_failed = True
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, asked)
        crashes = 0
        while not worker.complete.is_set():
            await worker.until(lambda: bool(worker.leases) or worker.complete.is_set())
            bad = [lease for lease in worker.leases.values() if b"poison" in lease.payload]
            for lease in bad:
                crashes += 1
                await crash(worker, lease, crashes)
            if not bad and crashes < 2 * leases.MAX_LOSSES:  # the good half waits in the worker meanwhile
                await worker.until(lambda: any(b"poison" in lease.payload for lease in worker.leases.values()))
            elif not bad:
                crashes = 2 * leases.MAX_LOSSES
                await worker.send(*(worker.result(lease) for lease in worker.leases.values()))
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        [failed] = await listed(kit, job_id, Batch.STATE_FAILED)
        assert (failed.items_json, failed.error) == ('["poison"]', "3 workers were lost while they had this batch")
        assert (job.batch_counts.succeeded, job.metrics.failed) == (2, 0)


async def test_containers_that_no_batch_survives_end_a_job_that_halves(tmp_path: Path, driver: ScriptedDriver) -> None:
    asked = request([*range(200)], batch_size=2)
    asked.split_failed = True
    async with scheduler(tmp_path, driver) as kit:
        job_id, worker = await begin(kit, asked)
        crashes = 0
        while not worker.shutdown.is_set():
            await worker.until(lambda: bool(worker.leases) or worker.shutdown.is_set())
            for lease in [*worker.leases.values()][:1]:
                crashes += 1
                await crash(worker, lease, crashes)
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "worker 0 failed 5 times in a row" in job.reason
        halved = await listed(kit, job_id, Batch.STATE_SPLIT)
        assert len(halved) <= restart_budget.MAX_EXCUSES + restart_budget.MAX_FAILED_STARTS, "of a hundred"


async def crash(worker: ScriptedWorker, lease: worker_service_pb2.Lease, times: int) -> None:
    """The container dies with a batch, for so many times in a row, and is started again."""
    message = worker_service_pb2.WorkRequest()
    message.health.phase = worker_service_pb2.Health.PHASE_READY
    message.health.failed_starts = times
    await worker.say(message)
    await worker.give_back(lease, lost=True)
