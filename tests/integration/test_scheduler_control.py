"""Running jobs that are changed: scaled, paused, resumed, stopped for too many failures; and how fast they are."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2, worker_service_pb2
from services.common.errors import CortexError
from services.common.grpc_errors import from_rpc_error
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


async def update(kit: Kit, job_id: str, **fields: Any) -> resources_pb2.Job:
    return (await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, **fields))).job


async def refused(kit: Kit, job_id: str, **fields: Any) -> CortexError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(kit, job_id, **fields)
    return from_rpc_error(error.value)


async def submit(kit: Kit, items: int, **fields: Any) -> resources_pb2.Job:
    request = pb.SubmitJobRequest(api_name="hello", **fields)
    request.item_list.items_json = str(list(range(items)))
    request.item_list.batch_size = 1
    return (await kit.batch.SubmitJob(request)).job


async def opened(kit: Kit, credit: int = 4) -> ScriptedWorker:
    worker = await kit.worker()
    await worker.open(credit=credit)
    return worker


async def give_back(worker: ScriptedWorker) -> None:
    """Return what was asked back."""
    message = worker_service_pb2.WorkRequest()
    for lease in [lease for lease in worker.leases.values() if lease.epoch in worker.revoked]:
        message.returned.add(batch_index=lease.batch_index, epoch=lease.epoch)
        del worker.leases[lease.batch_index]
    await worker.say(message)


async def end(worker: ScriptedWorker, driver: ScriptedDriver) -> None:
    """Do what a worker does that is told to end."""
    await worker.until(worker.shutdown.is_set)
    await worker.close()
    driver.die(worker.id)


async def test_a_job_gets_more_workers_and_keeps_them_over_a_restart(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 40, workers=1)).job_id
        first = await opened(kit)
        assert (await update(kit, job_id, workers=3)).workers == 3
        assert {(await kit.worker()).slot, (await kit.worker()).slot} == {1, 2}
        await first.close()
    async with scheduler(tmp_path, driver) as kit:
        assert (await kit.job(job_id)).workers == 3


async def test_a_job_gets_fewer_workers_and_none_of_its_batches_is_lost(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 40, workers=2)).job_id
        stays, goes = sorted([await opened(kit), await opened(kit)], key=lambda worker: worker.slot)
        await goes.lease(2)
        assert (await update(kit, job_id, workers=1)).workers == 1
        await end(goes, driver)
        await stays.work_off()
        await stays.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 40)
        assert driver.started.empty()  # nobody took the place of the one that was sent away


async def test_a_worker_that_was_sent_away_and_is_wanted_again_is_replaced(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 40, workers=2)).job_id
        workers = [await opened(kit), await opened(kit)]
        goes = next(worker for worker in workers if worker.slot == 1)
        await update(kit, job_id, workers=1)
        await goes.until(goes.shutdown.is_set)
        await update(kit, job_id, workers=2)
        await end(goes, driver)
        assert (await kit.worker()).slot == 1
        assert driver.started.empty()


async def test_a_paused_job_takes_back_what_was_not_begun_and_gives_out_nothing(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 100, workers=1)).job_id
        worker = await opened(kit, credit=8)
        await worker.lease(8)
        assert (await update(kit, job_id, paused=True)).paused
        await worker.until(lambda: len(worker.revoked) == 6)  # two are in the container
        await give_back(worker)
        begun = list(worker.leases.values())
        await worker.send(*(worker.result(lease) for lease in begun))
        job = await kit.until(job_id, lambda job: job.batch_counts.succeeded == 2 and not job.batch_counts.leased)
        assert (job.batch_counts.pending, job.progress.HasField("eta_seconds")) == (98, False)
        assert not worker.leases
        await worker.close()
    async with scheduler(tmp_path, driver) as kit:  # also after a restart
        await worker.open(credit=8)
        await worker.until(worker.welcome.is_set)
        assert (await kit.job(job_id)).paused
        assert not worker.leases
        assert not (await update(kit, job_id, paused=False)).paused
        await worker.work_off()
        await worker.answer_completion()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 100)


async def test_a_job_whose_last_batches_end_while_it_is_paused_is_over(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 2, workers=1)).job_id
        worker = await opened(kit)
        leases = await worker.lease(2)
        await update(kit, job_id, paused=True)
        await worker.send(*(worker.result(lease) for lease in leases))
        await worker.answer_completion()
        assert (await kit.until(job_id, lambda job: job.HasField("end_time"))).status == Job.STATUS_SUCCEEDED
        assert (await refused(kit, job_id, workers=2)).kind == "job.job_is_not_in_progress"


async def test_what_cannot_be_changed_is_told(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 2, workers=1)).job_id
        assert (await refused(kit, job_id)).kind == "configreader.must_be_defined"
        assert (await refused(kit, job_id, workers=0)).kind == "configreader.must_be_greater_than_or_equal_to"
        assert (await refused(kit, "6000000000000000", workers=1)).kind == "job.not_found"


async def test_workers_follow_the_number_of_batches(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        scaling = resources_pb2.WorkerScaling(batches_per_worker=10, max_workers=8)
        job = await submit(kit, 25, worker_scaling=scaling)
        assert (job.workers, job.worker_scaling) == (3, scaling)
        assert {(await kit.worker()).slot for _ in range(3)} == {0, 1, 2}
        assert driver.started.empty()
        assert (await update(kit, job.job_id, workers=1)).workers == 1  # a user knows better


async def test_too_many_failures_stop_a_job_early(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job = await submit(kit, 20, workers=1, max_failed_percent=10)
        worker = await opened(kit)
        leases = await worker.lease(3)
        await worker.send(*(worker.result(lease, ok=False) for lease in leases[:2]))
        assert not (await kit.until(job.job_id, lambda job: job.batch_counts.failed == 2)).HasField("end_time")
        await worker.send(worker.result(leases[2], ok=False))
        job = await kit.until(job.job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_STOPPED
        assert job.reason.startswith("3 of 20 batches failed, more than 10 %, such as batch 0: the container answered")
        assert not worker.completions_asked


async def test_a_running_job_tells_its_speed_and_one_that_is_over_does_not(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = (await submit(kit, 10, workers=1)).job_id
        worker = await opened(kit)
        assert (await kit.job(job_id)).progress.batches_per_second == 0
        await worker.send(*(worker.result(lease) for lease in (await worker.lease(2))[:2]))
        progress = (await kit.until(job_id, lambda job: job.batch_counts.succeeded == 2)).progress
        assert progress.batches_per_second > 0
        assert progress.eta_seconds == pytest.approx(8 / progress.batches_per_second)
        await worker.work_off()
        await worker.answer_completion()
        assert not (await kit.until(job_id, lambda job: job.HasField("end_time"))).HasField("progress")
