"""What every WorkerDriver promises (see `test_worker_driver`), held by the one whose workers are pods, without pids."""

import json
from pathlib import Path

import pytest

from services.scheduler.domain.model.worker import End
from tests.cluster.kubelet.kubelet import unsupported
from tests.contract.kubernetes_driver_kit import KubernetesKit
from tests.integration.local_worker_kit import job, script

pytestmark = pytest.mark.skipif(bool(unsupported()), reason=f"this machine cannot run pods: {unsupported()}")

SLEEPER = script("api", "cat /cortex/spec/job.json; echo; exec sleep 1000", env={"PORT": "$(CORTEX_PORT)"})
kit = KubernetesKit()


async def test_a_started_worker_is_known_runs_and_is_killed(tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        assert worker.found
        assert json.loads(await workers.says("api", "job_id"))["job_id"] == worker.job_id
        await workers.says("dequeuer", "there")
        await workers.driver.kill(worker)
        assert (await workers.exit_of(worker)).blameless
        await workers.driver.kill(worker)  # again changes nothing
        assert len(workers.exits) == 1


async def test_a_later_scheduler_adopts_a_worker_and_is_told_of_its_end(tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers, kit.workers(tmp_path) as later:
        worker = await workers.start(kit.api(SLEEPER))
        assert await later.driver.adopt(worker)
        assert await later.driver.adopt(worker)  # again changes nothing
        await later.says("dequeuer", "there")
        await later.driver.kill(worker)
        await later.exit_of(worker)
        assert not await later.driver.adopt(worker)


async def test_the_jobs_document_reaches_running_workers(tmp_path: Path) -> None:
    text = 'while ! grep -q total /cortex/spec/job.json; do sleep 0.01; done; echo "seen by $$PPID"; exec sleep 1000'
    async with kit.workers(tmp_path) as workers:
        await workers.start(kit.api(script("api", text)))
        await workers.driver.write_job_spec(job(), '{"total_batch_count": 7}')
        await workers.says("api", "seen by")


async def test_clean_up_ends_and_removes_everything(tmp_path: Path) -> None:
    async with kit.workers(tmp_path) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        await workers.says("dequeuer", "there")
        await workers.driver.clean_up(worker.job_id)
        assert (await workers.exit_of(worker)).blameless
        await workers.driver.clean_up(worker.job_id)  # again changes nothing


async def test_a_dequeuer_that_fails_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    failing = ("/bin/sh", "-c", "echo 'error: the socket is gone' >&2; exit 1")
    async with kit.workers(tmp_path, dequeuer=failing) as workers:
        worker = await workers.start(kit.api(SLEEPER))
        told = await workers.exit_of(worker)
        assert (told.end, told.reason) == (End.FAILED, "its dequeuer exited with code 1: error: the socket is gone")
