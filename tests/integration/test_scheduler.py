"""The scheduler over its real wire and its real ledger; the workers are scripted."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import worker_service_pb2
from services.common.grpc_errors import from_rpc_error
from tests.integration.scheduler_kit import Job, ScriptedDriver, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


async def test_a_job_runs_from_its_submission_to_its_end(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit('[1.0, 12345678901234567890, {"b":1,"a":[2]}, "x", 1e400]', batch_size=2)
        assert (await kit.job(job_id)).batch_counts.pending == 3, "batches count from the beginning"
        worker = await kit.worker()
        await worker.open()
        seen: dict[int, bytes] = {}
        await worker.work_off(seen)
        assert seen == {0: b"[1.0,12345678901234567890]", 1: b'[{"b":1,"a":[2]},"x"]', 2: b"[1e400]"}
        assert (await kit.job(job_id)).status == Job.STATUS_RUNNING
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_SUCCEEDED
        assert (job.batch_counts.succeeded, job.batch_counts.failed, job.total_batch_count) == (3, 0, 3)
        assert job.metrics.succeeded == 3
        assert not job.HasField("worker_counts")
        async with asyncio.timeout(5):
            await worker.shutdown.wait()
        assert json.loads(driver.job_specs[-1])["total_batch_count"] == 3


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
async def test_a_job_cannot_be_watched_at_an_interval_without_sense(
    tmp_path: Path, driver: ScriptedDriver, seconds: float
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        wanted = pb.WatchJobRequest(api_name="hello", job_id=await kit.submit("[1]"), min_interval_seconds=seconds)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await anext(aiter(kit.batch.WatchJob(wanted)))
        assert from_rpc_error(error.value).kind == "job.invalid_watch_interval"


async def test_a_failed_batch_is_passed_over_and_counted(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3]")
        worker = await kit.worker()
        await worker.open()
        first = (await worker.lease(1))[0]
        await worker.send(worker.result(first, ok=False))
        await worker.work_off()
        await worker.answer_completion(500, "the container answered 500")
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
        assert (job.batch_counts.succeeded, job.batch_counts.failed) == (2, 1)
        assert (job.metrics.succeeded, job.metrics.failed) == (2, 1)
        assert job.completion.http_status == 500
        assert "batch 0: the container answered 500" in job.reason
        assert "on-job-complete" in job.reason


async def test_what_a_broken_stream_held_goes_on_after_it_returns(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3,4]")
        worker = await kit.worker()
        await worker.open(credit=2)
        leases = await worker.lease(2)
        await worker.close()
        await worker.open(held=[leases[1]], results=[worker.result(leases[0])], credit=2)
        worker.leases = {leases[1].batch_index: leases[1]}
        await worker.work_off()
        assert not worker.dropped
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.succeeded, job.metrics.succeeded) == (4, 4)


async def test_after_a_crash_nothing_is_leased_until_every_known_worker_is_back(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3,4,5,6]", workers=2)
        one, two = await kit.worker(), await kit.worker()
        await one.open(credit=2)
        await two.open(credit=2)
        held_by_one, held_by_two = await one.lease(2), await two.lease(2)
        await one.send(one.result(held_by_one[0]))
        await one.close()
        await two.close()
        held_by_one = [lease for lease in held_by_one if lease.epoch not in one.recorded]
    async with scheduler(tmp_path, driver) as kit:
        await one.open(held=held_by_one, credit=6)
        await one.say(worker_service_pb2.WorkRequest(heartbeat=worker_service_pb2.Heartbeat()))
        assert not [index for index in one.leases if index in {lease.batch_index for lease in held_by_two}]
        await two.open(held=held_by_two, credit=2)
        await two.send(*(two.result(lease) for lease in held_by_two))
        await asyncio.gather(two.close(), one.send(*(one.result(lease) for lease in held_by_one)))
        driver.die(two.id)
        await one.work_off()
        await one.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.succeeded, job.metrics.succeeded) == (6, 6), "each batch ran once"


async def test_after_a_crash_a_worker_that_stays_away_is_given_up(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3]")
        worker = await kit.worker()
        await worker.open()
        await worker.lease(2)
        await worker.close()
    async with scheduler(tmp_path, driver, grace_seconds=0.2) as kit:
        replacement = await kit.worker()
        assert replacement.slot == worker.slot
        assert worker.id in driver.killed
        await replacement.open()
        await replacement.work_off()
        await replacement.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.batch_counts.succeeded == 3


async def test_completion_is_not_asked_twice_over_a_crash(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]", workers=2)
        one, two = await kit.worker(), await kit.worker()
        await one.open()
        await one.work_off()
        await one.close()
    async with scheduler(tmp_path, driver) as kit:
        await two.open()
        await one.open(completing=True)
        await one.say(worker_service_pb2.WorkRequest(completion=worker_service_pb2.CompletionResult(http_status=404)))
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_SUCCEEDED
        assert (one.completions_asked, two.completions_asked) == (1, 0)


async def test_a_lost_worker_is_replaced_and_its_batches_are_not_failures(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3]")
        worker = await kit.worker()
        await worker.open()
        await worker.lease(2)
        driver.die(worker.id)
        replacement = await kit.worker()
        await replacement.open()
        await replacement.work_off()
        await replacement.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_SUCCEEDED
        assert (job.metrics.succeeded, job.metrics.failed) == (3, 0)


async def test_a_batch_that_loses_three_workers_is_failed_and_the_job_goes_on(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2]")
        for _ in range(3):
            worker = await kit.worker()
            await worker.open(credit=1)
            assert (await worker.lease(1))[0].batch_index == 0
            driver.die(worker.id)
        worker = await kit.worker()
        await worker.open(credit=1)
        await worker.work_off()
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.batch_counts.succeeded, job.batch_counts.failed, job.metrics.failed) == (1, 1, 0)


async def test_five_failing_starts_in_a_row_end_the_job(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open(ready=False)
        message = worker_service_pb2.WorkRequest()
        message.health.phase = worker_service_pb2.Health.PHASE_BACKOFF
        message.health.failed_starts = 5
        message.health.out_of_memory = True
        message.health.reason = "container api used more memory than its limit"
        await worker.say(message)
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_WORKER_OOM
        assert "memory" in job.reason
        assert job.batch_counts.pending == 1


async def test_no_ready_worker_within_the_deadline_ends_the_job(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver, deadline_seconds=0.3) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open(ready=False)
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "became ready" in job.reason


async def test_stopping_ends_the_workers_and_nothing_more_is_delivered(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3]")
        worker = await kit.worker()
        await worker.open(credit=1)
        await worker.lease(1)
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        job = await kit.job(job_id)
        assert job.status == Job.STATUS_STOPPED
        assert (job.batch_counts.pending, job.batch_counts.leased) == (3, 0)
        async with asyncio.timeout(5):
            await worker.shutdown.wait()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        assert from_rpc_error(error.value).kind == "job.job_is_not_in_progress"
        assert worker.completions_asked == 0


async def test_deleting_an_api_stops_its_jobs(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await kit.batch.DeleteApi(pb.DeleteApiRequest(name="hello"))
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED


async def test_a_timeout_holds_over_a_crash(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]", timeout_seconds=1)
        await kit.worker()
    driver.alive.clear()
    async with scheduler(tmp_path, driver) as kit:
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_TIMED_OUT
        assert "1 s" in job.reason


async def test_batches_come_back_from_a_busy_worker_to_an_idle_one(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        await kit.submit(json.dumps(list(range(8))), workers=2)
        busy, idle = await kit.worker(), await kit.worker()
        await busy.open(credit=8)
        await busy.until(lambda: len(busy.leases) >= 4)
        await idle.open(credit=8)
        await idle.lease(1)
        while busy.leases and not busy.revoked:
            await idle.send(*(idle.result(lease) for lease in list(idle.leases.values())))
            await asyncio.wait(
                [
                    asyncio.ensure_future(idle.until(lambda: bool(idle.leases))),
                    asyncio.ensure_future(busy.until(lambda: bool(busy.revoked))),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        assert busy.revoked


async def test_a_worker_that_is_ready_late_gets_all_that_another_one_has_not_begun(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(list(range(8))), workers=2)
        stuck, late = await kit.worker(), await kit.worker()
        await stuck.open(credit=8)
        held = {lease.epoch: lease for lease in await stuck.lease(4)}
        await late.open(credit=8, ready=False)
        ready = worker_service_pb2.Health(phase=worker_service_pb2.Health.PHASE_READY)
        await late.say(worker_service_pb2.WorkRequest(health=ready))

        async def give_back() -> None:
            while len(held) > 2:  # as many as are in its container
                await stuck.until(lambda: bool(stuck.revoked & held.keys()))
                asked = [held.pop(epoch) for epoch in stuck.revoked & held.keys()]
                message = worker_service_pb2.WorkRequest()
                for lease in asked:
                    message.returned.add(batch_index=lease.batch_index, epoch=lease.epoch)
                await stuck.say(message)

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(give_back())
            done = 0
            while done < 6:
                leases = await late.lease(1)
                await late.send(*(late.result(lease) for lease in leases))
                done += len(leases)
        job = await kit.job(job_id)
        assert (job.batch_counts.succeeded, job.batch_counts.leased) == (6, 2)


@pytest.mark.parametrize(
    ("token", "worker_id"), [("", "x"), ("not.a.token", "x")], ids=["no token", "a token of nobody"]
)
async def test_a_stranger_is_not_let_in(tmp_path: Path, driver: ScriptedDriver, token: str, worker_id: str) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        await kit.submit("[1]")
        worker = await kit.worker()
        worker.token, worker.id = token, worker_id
        await worker.open()
        async with asyncio.timeout(5):
            await worker.ended.wait()
        assert worker.error is not None
        assert worker.error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_large_jobs_are_split_while_work_goes_on_and_a_crash_in_between_loses_nothing(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    count = 40_000
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(list(range(count))))
        worker = await kit.worker()
    driver.alive.clear()
    async with scheduler(tmp_path, driver) as kit:
        worker = await kit.worker()
        await worker.open(credit=2048)
        seen: dict[int, bytes] = {}
        await worker.work_off(seen)
        assert seen == {index: b"[%d]" % index for index in range(count)}
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.batch_counts.succeeded == count
