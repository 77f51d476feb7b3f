"""The scheduler and real dequeuers where workers are pods: named by the cluster, crashing, disrupted, out of images."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from services.common.exit_codes import DONE, HANDED_BACK, JOB_IS_OVER
from services.dequeuer import deaths
from services.dequeuer.external_pod import ExternalPod
from services.scheduler.adapters.tokens import JwtTokens
from services.scheduler.domain.model.worker import Health, Phase, WorkerRecord
from services.scheduler.usecases.running import restart_budget
from tests.integration.dequeuer_kit import Answer, Asked
from tests.integration.pods_kit import PodDriver, pods
from tests.integration.scheduler_kit import Job, Kit, ScriptedWorker, scheduler


@asynccontextmanager
async def cluster(
    directory: Path, driver: PodDriver, *, grace_seconds: float = 30.0, deadline_seconds: float = 60.0
) -> AsyncIterator[Kit]:
    """A scheduler whose workers are this driver's pods."""
    driver.address = f"unix:{directory / 's'}"
    async with scheduler(directory, driver, grace_seconds=grace_seconds, deadline_seconds=deadline_seconds) as kit:
        tokens = JwtTokens(kit.ledger.secret)
        driver.sign = lambda job_id: tokens.sign(job_id, "")
        yield kit


def over(job: Job) -> bool:
    return job.HasField("end_time")


async def gone(kit: Kit, job_id: str) -> None:
    """Wait until the job's workers are gone: then its logs end."""
    async for _ in kit.batch.TailLogs(pb.TailLogsRequest(api_name="hello", job_id=job_id, follow=True)):
        pass


class Held:
    """A container that keeps its batches until it is let go."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.busy = asyncio.Event()

    async def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/":
            self.busy.set()
            await self.free.wait()
        return 200


async def test_a_job_runs_in_pods_which_the_cluster_names(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(str(list(range(100))), workers=3)
        job = await kit.until(job_id, over)
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 100)
        assert driver.sizes == [3]


async def test_the_last_word_of_a_pod_is_that_its_job_needs_it_no_more(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await held.busy.wait()
        uid = driver.only().uid
        held.free.set()
        await kit.until(job_id, over)
        await gone(kit, job_id)
        assert driver.ended == [(uid, 0)]
        assert await kit.ledger.workers() == []


async def test_a_pod_that_calls_before_it_is_known_tries_again(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        driver.hands_out.clear()
        await kit.deploy()
        job_id = await kit.submit("[1, 2, 3]")
        await driver.until(lambda: driver.pods)
        record = WorkerRecord(driver.only().uid, job_id, 0, None, None)
        stranger = ScriptedWorker(record, driver.sign(job_id), kit.address)
        await stranger.open()
        await stranger.ended.wait()
        assert stranger.error is not None
        assert stranger.error.code() is grpc.StatusCode.UNAVAILABLE
        await stranger.close()
        driver.hands_out.set()
        assert (await kit.until(job_id, over)).status == Job.STATUS_SUCCEEDED
        assert driver.ended == [] or driver.ended[0][1] == 0


async def test_batches_of_a_container_that_died_are_given_back_however_late_the_news_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    look = deaths._is_open

    async def is_open(port: int) -> bool:
        found = await look(port)
        looked.set()
        return found

    monkeypatch.setattr(deaths, "_is_open", is_open)
    monkeypatch.setattr(deaths, "NEWS_S", 0.0)  # what is longer is patience with the late news
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit(str(list(range(10))))
        await held.busy.wait()
        driver.only().crash()
        async with asyncio.timeout(10):
            await looked.wait()
        held.free.set()
        driver.only().told()
        await kit.until(job_id, lambda job: job.worker_counts.not_ready == 1)
        await driver.only().restart()
        driver.only().told()
        job = await kit.until(job_id, over)
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 10)
        assert job.metrics.failed == 0


async def test_batches_of_a_container_that_listens_no_more_are_given_back_also_if_its_death_is_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExternalPod, "news_s", deaths.NEWS_S + 0.1)
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit(str(list(range(10))))
        await held.busy.wait()
        driver.only().crash()
        held.free.set()
        await kit.until(job_id, lambda job: job.worker_counts.not_ready == 1 and job.batch_counts.leased == 0)
        await driver.only().restart()
        job = await kit.until(job_id, over)
        assert (job.status, job.batch_counts.succeeded) == (Job.STATUS_SUCCEEDED, 10)
        assert job.metrics.failed == 0


async def test_a_connection_that_breaks_while_the_container_lives_is_a_failed_attempt(tmp_path: Path) -> None:
    async def hang_up(asked: Asked) -> Answer:
        return None if asked.path == "/" else 200

    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        driver.answer = hang_up
        await kit.deploy()
        job = await kit.until(await kit.submit("[1]"), over)
        assert (job.status, job.metrics.failed) == (Job.STATUS_COMPLETED_WITH_FAILURES, 1)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ({}, Job.STATUS_WORKER_ERROR, "exited with code 3"),
        ({"out_of_memory": True, "reason": "ran out of memory"}, Job.STATUS_WORKER_OOM, "ran out of memory"),
        ({"exit_code": None, "signal": 9, "reason": "was ended by signal 9"}, Job.STATUS_WORKER_ERROR, "signal 9"),
    ],
)
async def test_a_container_that_keeps_dying_beside_its_dequeuer_ends_the_job(
    tmp_path: Path, how: dict[str, object], status: int, said: str
) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
        for _ in range(restart_budget.MAX_FAILED_STARTS):
            driver.only().crash(**how)
        driver.only().told()
        job = await kit.until(job_id, over)
        assert job.status == status
        assert "worker 0 failed 5 times in a row" in job.reason
        assert said in job.reason


async def test_a_container_that_dies_before_the_dequeuer_runs_ends_the_job_by_the_drivers_word(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver, grace_seconds=0.1) as kit:
        driver.dequeuers_begin = False
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await driver.until(lambda: driver.handed_out)
        for failed in range(restart_budget.MAX_FAILED_STARTS):
            await kit.until(job_id, lambda job: job.worker_counts.creating + job.worker_counts.pending == 1)
            health = Health(Phase.CREATING, "container `api` ran out of memory", failed + 1, out_of_memory=True)
            driver.health(driver.only().uid, health)
        job = await kit.until(job_id, over)
        assert job.status == Job.STATUS_WORKER_OOM
        assert "ran out of memory" in job.reason


async def test_a_pod_without_an_image_is_waited_for_until_the_deadline_and_its_error_told(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver, grace_seconds=0.05, deadline_seconds=1.0) as kit:
        driver.dequeuers_begin = False
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await driver.until(lambda: driver.handed_out)
        uid = driver.only().uid
        driver.health(uid, Health(Phase.STALLED, "no node for its pod"))
        await kit.until(job_id, lambda job: job.worker_counts.stalled == 1)
        driver.health(uid, Health(Phase.ERR_IMAGE_PULL, "container `api`: ErrImagePull: no such image"))
        await kit.until(job_id, lambda job: job.worker_counts.err_image_pull == 1)
        job = await kit.until(job_id, over)
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "no such image" in job.reason
        assert len(driver.handed_out) == 1, "it was not replaced for want of a word from it"


async def test_disruptions_are_replaced_and_never_counted_as_failures(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        driver.termination_s = 5.0
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await held.busy.wait()
        first = driver.only().uid
        driver.only().stop.set()  # SIGTERM, and not time enough for the batch
        await driver.until_gone(first)
        assert driver.ended == [(first, HANDED_BACK)]
        await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, paused=True))
        for _ in range(2 * restart_budget.MAX_FAILED_STARTS):
            await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
            uid = driver.only().uid
            driver.only().stop.set()
            await driver.until_gone(uid)
        held.free.set()
        await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, paused=False))
        job = await kit.until(job_id, over)
        assert (job.status, job.metrics.failed) == (Job.STATUS_SUCCEEDED, 0)


async def test_a_node_that_is_lost_again_and_again_is_no_failure_of_its_worker(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, paused=True))
        for lost in range(2 * restart_budget.MAX_FAILED_STARTS):
            await driver.until_handed_out(lost + 1)
            await driver.delete(driver.only().uid, reason="its node was lost")
        job = await kit.until(job_id, lambda job: job.worker_counts.killed == 2 * restart_budget.MAX_FAILED_STARTS)
        assert not over(job)
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))


async def test_pods_that_fail_by_themselves_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_budget, "BACKOFF_SECONDS", (0.0,))
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        await kit.deploy()
        driver.answer = Held()
        job_id = await kit.submit("[1]")
        for failed in range(restart_budget.MAX_FAILED_STARTS):
            await driver.until_handed_out(failed + 1)
            await driver.delete(driver.only().uid, reason="its dequeuer exited with code 1", blameless=False)
        job = await kit.until(job_id, over)
        assert job.status == Job.STATUS_WORKER_ERROR
        assert "exited with code 1" in job.reason


async def test_a_restarted_scheduler_finds_its_pods_by_their_own_names(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver:
        held = driver.answer = Held()
        async with cluster(tmp_path, driver) as kit:
            await kit.deploy()
            job_id = await kit.submit(str(list(range(50))), workers=2)
            await kit.until(job_id, lambda job: job.worker_counts.ready == 2)
            known = {record.worker_id for record in await kit.ledger.workers(job_id)}
            assert known == set(driver.pods)
        containers = [pod.container for pod in driver.pods.values()]
        async with cluster(tmp_path, driver) as kit:
            held.free.set()
            job = await kit.until(job_id, over)
            assert job.batch_counts.succeeded == 50
            assert driver.handed_out == known
        delivered = Counter(item for container in containers for item in container.batches)
        assert delivered == Counter(range(50))


async def test_what_a_crash_left_of_a_worker_that_was_just_named_is_forgotten(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver:
        driver.answer = held = Held()
        async with cluster(tmp_path, driver) as kit:
            await kit.deploy()
            job_id = await kit.submit("[1]")
            await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
            await kit.ledger.put_worker(WorkerRecord("provisional", job_id, 0, None, None))
        async with cluster(tmp_path, driver) as kit:
            await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
            assert [record.worker_id for record in await kit.ledger.workers(job_id)] == list(driver.pods)
            held.free.set()
            assert (await kit.until(job_id, over)).status == Job.STATUS_SUCCEEDED


async def test_the_number_of_pods_follows_the_job(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit(str(list(range(20))))
        await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
        await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, workers=3))
        await kit.until(job_id, lambda job: job.worker_counts.ready == 3)
        beyond = {pod.uid for pod in driver.pods.values() if pod.slot > 0}
        await kit.batch.UpdateJob(pb.UpdateJobRequest(api_name="hello", job_id=job_id, workers=1))
        held.free.set()
        await driver.until(lambda: not beyond & set(driver.pods))
        assert {code for uid, code in driver.ended if uid in beyond} == {HANDED_BACK}
        job = await kit.until(job_id, over)
        assert (job.batch_counts.succeeded, job.metrics.failed) == (20, 0)
        assert driver.sizes == [1, 3, 1]


async def test_a_stopped_job_does_not_wait_for_pods_that_never_come(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        driver.hands_out.clear()
        driver.dequeuers_begin = False
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await driver.until(lambda: driver.pods)
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        await gone(kit, job_id)
        assert driver.pods == {}
        assert await kit.ledger.workers() == []


@pytest.mark.parametrize(
    ("whose", "code"),
    [
        ("another job's", grpc.StatusCode.UNAUTHENTICATED),
        ("nobody's", grpc.StatusCode.UNAVAILABLE),
        ("a lost one's", grpc.StatusCode.FAILED_PRECONDITION),
        ("of a job that is over", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_a_token_for_a_job_speaks_for_its_workers_and_for_nothing_else(
    tmp_path: Path, whose: str, code: grpc.StatusCode
) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        held = driver.answer = Held()
        await kit.deploy()
        other = await kit.submit("[1]")
        await kit.until(other, lambda job: job.worker_counts.ready == 1)
        [of_other] = driver.pods
        await driver.delete(of_other)
        await kit.until(other, lambda job: job.worker_counts.ready == 1)
        [now_of_other] = driver.pods
        mine, worker_id = other, of_other
        if whose == "nobody's":
            worker_id = "nobody"
        elif whose == "another job's":
            mine, worker_id = await kit.submit("[2]"), now_of_other
        elif whose == "of a job that is over":
            held.free.set()
            await kit.until(other, over)
        worker = ScriptedWorker(WorkerRecord(worker_id, mine, 0, None, None), driver.sign(mine), kit.address)
        await worker.open()
        await worker.ended.wait()
        assert worker.error is not None
        assert worker.error.code() is code
        await worker.close()
        held.free.set()


async def test_a_pod_of_a_job_that_ended_meanwhile_says_so_with_its_exit_code(tmp_path: Path) -> None:
    async with pods(tmp_path) as driver, cluster(tmp_path, driver) as kit:
        driver.answer = Held()
        await kit.deploy()
        job_id = await kit.submit("[1]")
        await kit.until(job_id, lambda job: job.worker_counts.ready == 1)
        left = driver.pods.pop(driver.only().uid)  # the cluster does not answer: nobody can end it
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        assert left.dequeuer is not None
        async with asyncio.timeout(10):
            assert await left.dequeuer in (DONE, JOB_IS_OVER)
        left.container.close()
