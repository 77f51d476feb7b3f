"""The scheduler under faults: over its real wire and its real ledger; the workers are scripted."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import worker_service_pb2, worker_service_pb2_grpc
from services.common.errors import Category, CortexError
from services.common.grpc_errors import from_rpc_error
from services.common.lifecycle import Stop
from services.common.names import CHANNEL_OPTIONS
from services.common.telemetry import start
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.aws.sqs import SqsQueues
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.api import worker_servicer
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import WorkerRecord
from services.scheduler.usecases.running import readiness, restart_budget, worker_starts
from services.scheduler.wiring import Observed, Scheduler
from tests.integration.scheduler_kit import API_FILE, Job, Kit, ScriptedDriver, scheduler, settings

DISK_FULL = CortexError("ledger.storage_full", "the disk is full", Category.STORAGE_FULL)


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


def ended(job: Any) -> bool:
    return bool(job.HasField("end_time"))


def health(phase: "worker_service_pb2.Health.Phase.ValueType") -> worker_service_pb2.WorkRequest:
    return worker_service_pb2.WorkRequest(health=worker_service_pb2.Health(phase=phase))


class Halfway:
    """Stands for one of the ledger's writes: it tells when it is done, and its caller goes on only when let."""

    def __init__(self, kit: Kit, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write = getattr(kit.ledger, name)
        self.done, self.go_on = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(kit.ledger, name, self)

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        result = await self._write(*arguments, **options)
        self.done.set()
        await self.go_on.wait()
        return result


async def test_more_batches_come_back_at_once_than_are_kept_ready(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(list(range(400))))
        greedy = await kit.worker()
        await greedy.open(credit=400)
        await greedy.lease(130)
        driver.die(greedy.id)
        replacement = await kit.worker()
        await replacement.open(credit=2)
        await replacement.work_off()
        await replacement.answer_completion()
        job = await kit.until(job_id, ended)
        assert job.batch_counts.succeeded == 400


async def test_batches_that_got_lost_on_their_way_to_the_only_worker_are_leased_again_when_it_returns(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        await kit.submit("[1,2]")
        worker = await kit.worker()
        await worker.open()
        await worker.lease(2)
        await worker.close()
        worker.leases.clear()
        await worker.open()
        assert [lease.payload for lease in await worker.lease(2)] == [b"[1]", b"[2]"]


async def test_a_job_without_a_ready_worker_says_why(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "TROUBLE_SECONDS", 0.05)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open(ready=False)
        not_ready = worker_service_pb2.Health.PHASE_NOT_READY
        why = worker_service_pb2.Health(phase=not_ready, reason="nothing listens on port 8080")
        await worker.say(worker_service_pb2.WorkRequest(health=why))
        await kit.until(job_id, lambda job: job.reason == "no worker is ready: nothing listens on port 8080")
        await worker.say(health(worker_service_pb2.Health.PHASE_READY))
        await kit.until(job_id, lambda job: job.reason == "")
        await worker.work_off()
        await worker.answer_completion()
        assert (await kit.until(job_id, ended)).reason == ""


async def test_a_broken_job_ends_with_its_workers_and_takes_no_other_along(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        sound, broken = await kit.submit("[1,2]"), await kit.submit("[3,4]")
        workers = {worker.job_id: worker for worker in (await kit.worker(), await kit.worker())}
        for worker in workers.values():
            await worker.open(credit=1)
            await worker.lease(1)

        record = kit.ledger.record

        async def break_one(job_id: str, *arguments: Any) -> None:
            if job_id == broken:
                raise RuntimeError("something nobody thought of")
            await record(job_id, *arguments)

        monkeypatch.setattr(kit.ledger, "record", break_one)
        watching = asyncio.create_task(kit.until(broken, ended))
        lease = workers[broken].leases[0]
        await workers[broken].say(worker_service_pb2.WorkRequest(results=[workers[broken].result(lease)]))
        job = await watching
        assert job.status == Job.STATUS_UNEXPECTED_ERROR
        assert "something nobody thought of" in job.reason
        assert (job.batch_counts.pending, job.batch_counts.succeeded) == (2, 0)
        async with asyncio.timeout(5):
            await workers[broken].ended.wait()
        assert workers[broken].id in driver.killed
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=broken))
        assert from_rpc_error(error.value).kind == "job.job_is_not_in_progress"

        await workers[sound].work_off()
        await workers[sound].answer_completion()
        assert (await kit.until(sound, ended)).status == Job.STATUS_SUCCEEDED
        assert broken in driver.cleaned
        assert not await kit.ledger.workers(broken)


async def test_a_job_whose_api_cannot_be_read_keeps_the_scheduler_from_nothing(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        unreadable = await kit.submit("[1]")
        version = await kit.ledger.api("hello")
        assert version is not None
        await kit.batch.DeployApis(
            pb.DeployApisRequest(file_name="hello.yaml", config=API_FILE.replace(b"serve", b"serve2"))
        )
        sound = await kit.submit("[2]")
        await kit.ledger.put_apis([replace(version, spec_json="{}")])
    driver.alive.clear()
    driver.started = asyncio.Queue()
    async with scheduler(tmp_path, driver) as kit:
        job = await kit.job(unreadable)
        assert job.status == Job.STATUS_UNEXPECTED_ERROR
        assert "cannot be read" in job.reason
        worker = await kit.worker()
        await worker.open()
        await worker.work_off()
        await worker.answer_completion()
        assert (await kit.until(sound, ended)).status == Job.STATUS_SUCCEEDED


async def test_a_job_runs_also_when_its_client_went_away_while_it_was_stored(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        storing = Halfway(kit, "add_job", monkeypatch)
        request = pb.SubmitJobRequest(api_name="hello", workers=1)
        request.item_list.items_json, request.item_list.batch_size = "[1]", 1
        call: Any = kit.batch.SubmitJob(request)
        waiting = asyncio.ensure_future(call)
        async with asyncio.timeout(5):
            await storing.done.wait()
        waiting.cancel()
        # The scheduler hears of it before it hears of this one.
        await kit.batch.ListApis(pb.ListApisRequest())
        storing.go_on.set()
        worker = await kit.worker()
        await worker.open()
        await worker.work_off()


async def test_deleting_an_api_stops_its_jobs_also_when_the_client_went_away(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        deleting = Halfway(kit, "delete_api", monkeypatch)
        waiting = asyncio.ensure_future(kit.batch.DeleteApi(pb.DeleteApiRequest(name="hello")))
        async with asyncio.timeout(5):
            await deleting.done.wait()
        waiting.cancel()
        await kit.batch.ListApis(pb.ListApisRequest())
        deleting.go_on.set()
        assert (await kit.until(job_id, ended)).status == Job.STATUS_STOPPED


async def test_a_job_does_not_wait_for_ever_for_a_worker_that_was_ready_once(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver, deadline_seconds=1.0) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2]")
        worker = await kit.worker()
        await worker.open(credit=1)
        await worker.send(worker.result((await worker.lease(1))[0]))
        await worker.say(health(worker_service_pb2.Health.PHASE_NOT_READY))
        job = await kit.until(job_id, ended)
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "no worker was ready any more for 1 s" in job.reason
        assert (job.batch_counts.succeeded, job.batch_counts.pending) == (1, 1)


async def test_a_job_does_not_wait_for_ever_for_the_worker_that_was_asked_for_on_job_complete(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver, deadline_seconds=1.0) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]", workers=2)
        one, two = await kit.worker(), await kit.worker()
        await one.open()
        await two.open(credit=0)
        await one.work_off()
        await one.say(health(worker_service_pb2.Health.PHASE_NOT_READY))
        job = await kit.until(job_id, ended)
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "worker 0, which was asked for /on-job-complete" in job.reason
        assert two.completions_asked == 0


async def test_a_worker_that_said_goodbye_and_hangs_is_replaced(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver, grace_seconds=0.2) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open(credit=0)
        await worker.say(worker_service_pb2.WorkRequest(goodbye=worker_service_pb2.Goodbye(reason="told to")))
        await worker.close()
        replacement = await kit.worker()
        assert worker.id in driver.killed
        await replacement.open()
        await replacement.work_off()
        await replacement.answer_completion()
        assert (await kit.until(job_id, ended)).status == Job.STATUS_SUCCEEDED


async def test_a_full_disk_delays_workers_and_ends_no_job(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_starts, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr("services.scheduler.usecases.patience.RETRY_SECONDS", 0.01)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        refused = dict.fromkeys(("put_worker", "write_job_spec"), 0)

        def refuse_at_first(owner: Any, name: str) -> None:
            write = getattr(owner, name)

            async def refusing(*arguments: Any) -> Any:
                refused[name] += 1
                if refused[name] <= 2 * restart_budget.MAX_FAILED_STARTS:
                    raise DISK_FULL
                return await write(*arguments)

            monkeypatch.setattr(owner, name, refusing)

        refuse_at_first(kit.ledger, "put_worker")
        refuse_at_first(driver, "write_job_spec")
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open()
        await worker.work_off()
        await worker.answer_completion()
        assert (await kit.until(job_id, ended)).status == Job.STATUS_SUCCEEDED


async def test_what_cannot_start_is_not_tried_again(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]", workers=2)
        worker = await kit.worker()
        await worker.open(ready=False)
        told = health(worker_service_pb2.Health.PHASE_BACKOFF)
        told.health.reason, told.health.cannot_start = "its command `pyhton` was not found", True
        await worker.say(told)
        job = await kit.until(job_id, ended)
        assert (job.status, job.reason) == (Job.STATUS_WORKER_ERROR, f"worker {worker.slot}: {told.health.reason}")

        async def refuse(*_: object) -> WorkerRecord:
            raise CortexError("worker.no_working_directory", "there is no directory /a", Category.INVALID)

        monkeypatch.setattr(driver, "start", refuse)
        job = await kit.until(await kit.submit("[1]"), ended)
        assert job.status == Job.STATUS_WORKER_ERROR
        assert job.reason == "worker 0 cannot be started: there is no directory /a"


@pytest.mark.parametrize("read", ["segments", "read_input", "next_piece", "outcomes"])
async def test_a_ledger_that_cannot_be_read_for_a_while_is_told_and_ends_no_job(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr("services.scheduler.usecases.patience.RETRY_SECONDS", 0.01)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        works, broken = getattr(kit.ledger, read), True

        async def fail(*arguments: Any, **options: Any) -> Any:
            if broken:
                raise CortexError("ledger.failed", "disk I/O error", Category.INTERNAL)
            return await works(*arguments, **options)

        monkeypatch.setattr(kit.ledger, read, fail)
        items = 20_000 if read == "next_piece" else 2  # more than is split with the submission
        job_id = await kit.submit(json.dumps(list(range(items))))
        worker = await kit.worker()
        await worker.open(credit=256)
        if read == "outcomes":
            await worker.send(*(worker.result(lease, ok=False) for lease in await worker.lease(2)))
            await worker.answer_completion()
            job = await kit.until(job_id, ended)
            assert (job.status, job.reason) == (Job.STATUS_COMPLETED_WITH_FAILURES, "2 batches failed")
            return
        await kit.until(job_id, lambda job: job.reason == "disk I/O error")
        broken = False
        await kit.until(job_id, lambda job: job.reason == "")
        await worker.work_off()
        await worker.answer_completion()
        job = await kit.until(job_id, ended)
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, items)


async def test_counts_do_not_change_any_more_once_a_job_is_over(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2,3]")
        worker = await kit.worker()
        await worker.open(credit=2)
        first, second = await worker.lease(2)
        recording = Halfway(kit, "record", monkeypatch)
        await worker.say(worker_service_pb2.WorkRequest(results=[worker.result(first)]))
        async with asyncio.timeout(5):
            await recording.done.wait()
        stopping = asyncio.ensure_future(kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id)))
        recording.go_on.set()
        await stopping
        job = await kit.job(job_id)
        assert job.status == Job.STATUS_STOPPED
        assert (job.batch_counts.succeeded, job.batch_counts.pending, job.batch_counts.leased) == (1, 2, 0)
        await worker.send(worker.result(second))  # told to forget it
        driver.die(worker.id)
        last = await kit.until(job_id, ended)
        assert (last.batch_counts, last.metrics) == (job.batch_counts, job.metrics)
        record = await kit.ledger.job(job_id)
        assert record is not None
        assert record.tally.batches_succeeded == 1


async def test_nobody_completes_a_job_that_has_open_batches(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1,2]")
        worker = await kit.worker()
        await worker.open(completing=True, credit=1)
        await worker.say(
            worker_service_pb2.WorkRequest(completion=worker_service_pb2.CompletionResult(http_status=200))
        )
        await worker.send(worker.result((await worker.lease(1))[0]))
        await worker.work_off()
        assert not ended(await kit.job(job_id))
        await worker.answer_completion()
        job = await kit.until(job_id, ended)
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 2)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
async def test_a_duration_that_is_none_spoils_no_record(tmp_path: Path, driver: ScriptedDriver, seconds: float) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open()
        result = worker.result((await worker.lease(1))[0])
        result.duration_seconds = seconds
        await worker.send(result)
        job = await kit.job(job_id)
        assert (job.metrics.succeeded, job.metrics.succeeded_seconds) == (1, 0.0)


@pytest.mark.parametrize("read", ["open_batches", "workers"])
async def test_a_ledger_that_is_away_when_a_scheduler_begins_ends_no_job(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    monkeypatch.setattr("services.scheduler.usecases.patience.RETRY_SECONDS", 0.01)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open()
        held = await worker.lease(1)
        await worker.close()
    works = getattr(SqlLedger, read)
    refused: list[Any] = []

    async def fail_once(ledger: SqlLedger, *arguments: Any) -> Any:
        if arguments and not refused:
            refused.append(arguments)
            raise CortexError("ledger.unavailable", "the ledger cannot be reached", Category.UNAVAILABLE)
        return await works(ledger, *arguments)

    monkeypatch.setattr(SqlLedger, read, fail_once)
    async with scheduler(tmp_path, driver) as kit:
        assert refused
        await worker.open(held=held)
        await worker.work_off()
        await worker.answer_completion()
        job = await kit.until(job_id, ended)
        assert (job.status, job.reason) == (Job.STATUS_SUCCEEDED, "")
        assert driver.started.empty()


async def test_a_scheduler_that_cannot_begin_leaves_its_jobs_and_their_workers_to_the_next(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open()
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    aws = AwsSession({})
    queues, objects = SqsQueues(aws), ObjectStores(aws, ())
    built = await Scheduler.build(settings(tmp_path), ledger, driver, queues, Observed(start("test")), objects)

    async def fail(*_: object) -> None:
        raise CortexError("ledger.unavailable", "the ledger cannot be reached", Category.UNAVAILABLE)

    monkeypatch.setattr(built.server, "serve", fail)
    with pytest.raises(CortexError, match="cannot be reached"):
        await built.run(Stop())
    await ledger.close()
    await built.server.stop(None)
    assert driver.killed == []
    async with scheduler(tmp_path, driver) as kit:
        await worker.open()
        await worker.work_off()
        await worker.answer_completion()
        assert (await kit.until(job_id, ended)).status == Job.STATUS_SUCCEEDED


async def test_a_worker_that_was_just_noted_when_its_job_was_stopped_is_not_started(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        noted = Halfway(kit, "put_worker", monkeypatch)
        job_id = await kit.submit("[1]")
        async with asyncio.timeout(5):
            await noted.done.wait()
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        while not driver.killed:  # the worker is taken out
            await kit.batch.ListApis(pb.ListApisRequest())
        noted.go_on.set()
        async with asyncio.timeout(5):
            async for _ in kit.batch.TailLogs(pb.TailLogsRequest(api_name="hello", job_id=job_id, follow=True)):
                pass  # ends when the job's workers are gone
        assert driver.started.empty()
        assert await kit.ledger.workers() == []


async def test_when_a_restarted_scheduler_begins_to_listen_it_knows_its_workers(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        worker = await kit.worker()
        await worker.open()
        await worker.lease(1)
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    aws = AwsSession({})
    queues, objects = SqsQueues(aws), ObjectStores(aws, ())
    built = await Scheduler.build(settings(tmp_path), ledger, driver, queues, Observed(start("test")), objects)
    try:
        await built.jobs.resume()
        run = built.jobs.run(job_id)
        assert run is not None
        assert run.workers.find(worker.id) is not None, "it would be turned away, and its batch delivered twice"
    finally:
        await built.jobs.close(None)
        await built.server.stop(None)
        await ledger.close()


async def test_nothing_is_left_of_a_worker_that_was_being_started_when_its_job_was_stopped(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    cleaned_before_end: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def slow_start(api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:  # what a thread is doing cannot be cancelled
            await go_on.wait()
            cleaned_before_end.set_result(list(driver.cleaned))
        raise AssertionError("nobody starts it")

    monkeypatch.setattr(driver, "start", slow_start)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        async with asyncio.timeout(5):
            await begun.wait()
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        logs = asyncio.ensure_future(
            anext(aiter(kit.batch.TailLogs(pb.TailLogsRequest(api_name="hello", job_id=job_id, follow=True))), None)
        )
        while not driver.killed:
            await kit.batch.ListApis(pb.ListApisRequest())
        for _ in range(20):  # the scheduler goes on, as far as it does
            await kit.batch.ListApis(pb.ListApisRequest())
        go_on.set()
        async with asyncio.timeout(5):
            assert await cleaned_before_end == []
            await logs  # ends when the job's workers are gone
        assert (driver.cleaned, driver.alive) == ([job_id], set())


async def test_a_worker_that_neither_reads_nor_speaks_is_replaced(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_servicer, "HEARTBEAT_SECONDS", 0.1)
    async with scheduler(tmp_path, driver, grace_seconds=0.2) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(["x" * 200_000] * 40))
        deaf = await kit.worker()
        async with grpc.aio.insecure_channel(kit.address, options=CHANNEL_OPTIONS) as channel:
            call: Any = worker_service_pb2_grpc.WorkerServiceStub(channel).Work()
            hello = health(worker_service_pb2.Health.PHASE_READY)
            hello.hello.token, hello.hello.worker_id = deaf.token, deaf.id
            hello.credit.batches, hello.credit.bytes = 1000, 1 << 30
            await call.write(hello)
            for _ in range(3):  # the answers stay behind the batches
                await call.write(worker_service_pb2.WorkRequest(heartbeat=worker_service_pb2.Heartbeat()))
            replacement = await kit.worker()
            assert deaf.id in driver.killed
        monkeypatch.setattr(worker_servicer, "HEARTBEAT_SECONDS", 60)
        await replacement.open()
        await replacement.work_off()
        await replacement.answer_completion()
        assert (await kit.until(job_id, ended)).batch_counts.succeeded == 40
