"""What every WorkerDriver promises its users (`services.scheduler.usecases.ports.workers`), held by those of this
machine: workers as processes, and in real containers."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import CortexError
from services.scheduler.adapters.local_workers import LocalWorkerDriver
from services.scheduler.usecases.ports.workers import WorkerExit
from tests.contract.driver_kits import DriverKit
from tests.integration.local_worker_kit import job, script, without_pid

# With a port of its own, whatever else runs on this machine.
SLEEPER = script("api", "cat /cortex/spec/job.json; echo; exec sleep 1000", env={"PORT": "$(CORTEX_PORT)"})


async def test_a_started_worker_is_known_runs_and_is_killed_with_all_it_started(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        assert worker.pid is not None
        assert worker.started is not None
        assert await workers.says("api", "job_id") == '{"job_id": "00000000000000aa"}'
        assert (
            len(kit.left_of(worker)) >= 3
        )  # the dequeuer, what carries the container's output or walls, the container
        await workers.driver.kill(worker)
        assert kit.left_of(worker) == set()
        assert "SIGKILL" in (await workers.exit_of(worker)).reason
        await workers.driver.kill(worker)  # again changes nothing
        assert len(workers.exits) == 1


async def test_an_exit_is_told_once_when_nothing_of_the_worker_is_left(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        await workers.says("api", "job_id")
        left: list[set[object]] = []

        def told(exit_: WorkerExit) -> None:
            left.append(kit.left_of(worker))
            workers.exited(exit_)

        workers.driver.on_exit(told)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        assert (await workers.exit_of(worker)).reason == "its dequeuer was ended by signal 9 (SIGKILL)"
        assert left == [set()]


async def test_a_later_scheduler_adopts_a_worker_and_is_told_of_its_end(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers, kit.workers(tmp_path) as later:
        worker = await workers.start(kit.api(SLEEPER))
        assert await later.driver.adopt(worker)
        assert await later.driver.adopt(worker)  # again changes nothing
        await later.driver.kill(worker)
        await later.exit_of(worker)
        assert not await later.driver.adopt(worker)


async def test_a_stranger_with_the_same_pid_is_not_mistaken_for_a_worker(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers, kit.workers(tmp_path) as later:
        worker = await workers.start(kit.api(SLEEPER))
        stranger = replace(worker, worker_id="another", started=(worker.started or 0.0) + 1)
        assert not await later.driver.adopt(stranger)
        await later.driver.kill(stranger)
        assert worker.pid in kit.left_of(worker)


async def test_a_worker_whose_process_was_never_known_is_found_and_ended(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers, kit.workers(tmp_path) as later:
        worker = await workers.start(kit.api(SLEEPER))
        await workers.says("api", "job_id")
        await later.driver.kill(without_pid(worker))
        assert kit.left_of(worker) == set()


async def test_the_jobs_document_reaches_running_workers_and_later_ones(kit: DriverKit, tmp_path: Path) -> None:
    text = 'while ! grep -q total /cortex/spec/job.json; do sleep 0.01; done; echo "seen by $$PPID"; exec sleep 1000'
    async with kit.workers(tmp_path) as workers:
        await workers.start(kit.api(script("api", text), port=18_081))
        await workers.driver.write_job_spec(job(), '{"total_batch_count": 7}')
        await workers.says("api", "seen by")


async def test_clean_up_ends_and_removes_everything_but_the_output(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(
            kit.api(script("api", "mkdir -m 0 /mnt/locked; echo started; exec sleep 1000"), port=18_082)
        )
        await workers.says("api", "started")
        await workers.driver.clean_up(worker.job_id)
        await workers.exit_of(worker)
        assert kit.left_of(worker) == set()
        assert (tmp_path / "logs" / "hello" / worker.job_id / "0" / "api.jsonl").exists()
        assert not (tmp_path / "workers" / worker.job_id / "0" / "worker.json").exists()
        await workers.driver.clean_up(worker.job_id)  # again changes nothing


async def test_what_cannot_be_started_is_told_in_a_sentence(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path, dequeuer=("/no/such/program",)) as workers:
        with pytest.raises(CortexError, match="/no/such/program"):
            await workers.start(kit.api(SLEEPER))


async def test_a_dequeuer_that_fails_at_once_is_told_with_its_last_words(kit: DriverKit, tmp_path: Path) -> None:
    failing = ("/bin/sh", "-c", "echo 'error: the socket is gone' >&2; exit 1")
    async with kit.workers(tmp_path, dequeuer=failing) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        assert (await workers.exit_of(worker)).reason == "its dequeuer exited with code 1: the socket is gone"


async def test_a_driver_may_be_asked_before_anybody_listens(kit: DriverKit, tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        later = LocalWorkerDriver(workers.settings)
        told: list[WorkerExit] = []
        assert await later.adopt(worker)
        later.on_exit(told.append)
        await later.kill(worker)
        assert [each.worker_id for each in told] == [worker.worker_id]
