"""A job's results written to the store that its submission names, before it is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from services.common.errors import Category, CortexError
from services.scheduler.adapters.file_store import FileStore
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.usecases.running import ending
from tests.contract.object_servers import AwsServer
from tests.contract.test_object_store import s3_session
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler


class DirectoryStore(FileStore):
    """A directory that is away, or slow, when the test says so."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        super().__init__([root])
        self._root_path = root
        self.kept = resources_pb2.Results(s3_path=f"file://{root}/job")
        self.away = False
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.writing = asyncio.Event()

    def text(self, name: str) -> str:
        return (self._root_path / name).read_text()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self._root_path)) for path in self._root_path.rglob("*") if path.is_file())

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        self.writing.set()
        await self.may_write.wait()
        self._check()
        await super().write(uri, chunks)

    async def check_writable(self, uri_prefix: str) -> None:
        self._check()
        await super().check_writable(uri_prefix)

    def _check(self) -> None:
        if self.away:
            raise CortexError("aws.unreachable", "the store is away", Category.UNAVAILABLE)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "objects")


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "PUBLISH_AGAIN_SECONDS", 0.05)


@asynccontextmanager
async def running(directory: Path, driver: ScriptedDriver, store: DirectoryStore) -> AsyncIterator[Kit]:
    async with scheduler(directory, driver, objects=store) as kit:
        await kit.deploy()
        yield kit


async def answered(kit: Kit, job_id: str) -> ScriptedWorker:
    """Work off three batches, the second of which fails, and answer /on-job-complete."""
    worker = await kit.worker()
    await worker.open()
    for batch in range(3):
        await worker.until(lambda: batch in worker.leases)  # noqa: B023  # awaited within the turn
        result = worker.result(worker.leases[batch], ok=batch != 1, reply=b'{"n":\n%d}' % batch)
        await worker.send(result)
    await worker.answer_completion()
    return worker


ITEMS = "[0, [1,\n2], 3]"
RESULTS = '{"batch":0,"reply":{"n": 0}}\n{"batch":2,"reply":{"n": 2}}\n'


async def test_both_files_are_there_when_the_job_is_over(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        worker = await answered(kit, job_id)
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        async with asyncio.timeout(10):
            await worker.shutdown.wait()
    assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
    assert job.reason == "1 batch failed, such as batch 1: the container answered 500"
    assert store.names() == ["job/errors.ndjson", "job/results.ndjson"]
    assert store.text("job/results.ndjson") == RESULTS
    (line,) = store.text("job/errors.ndjson").splitlines()
    error = json.loads(line)
    assert error.pop("time").endswith("Z")
    assert error == {
        "index": 1,
        "state": "failed",
        "attempts": 1,
        "http_status": 500,
        "error": "the container answered 500",
        "items": [[1, 2]],
    }


async def test_a_place_that_cannot_be_written_is_said_at_submission(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    store.away = True
    async with running(tmp_path, driver, store) as kit:
        with pytest.raises(grpc.aio.AioRpcError, match="the store is away"):
            await kit.submit(ITEMS, results=store.kept)
        assert (await kit.batch.ListJobs(pb.ListJobsRequest(api_name="hello"))).jobs == []


async def test_a_store_that_is_away_holds_the_job_and_its_workers_are_let_go(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        store.away = True
        worker = await answered(kit, job_id)
        async with asyncio.timeout(10):
            await worker.shutdown.wait()
        job = await kit.until(job_id, lambda job: "the store is away" in job.reason)
        assert job.status == Job.STATUS_RUNNING
        store.away = False
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
    assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
    assert store.text("job/results.ndjson") == RESULTS


async def test_a_job_that_waits_for_its_store_can_be_stopped(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        store.away = True
        await answered(kit, job_id)
        await kit.until(job_id, lambda job: "the store is away" in job.reason)
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED
    assert store.names() == []


async def test_after_a_crash_in_the_middle_the_results_are_written_again_and_the_container_is_not_asked_again(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    store.may_write.clear()
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        await answered(kit, job_id)
        async with asyncio.timeout(10):
            await store.writing.wait()
    assert store.names() == []
    store.may_write.set()
    async with running(tmp_path, driver, store) as kit:
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert driver.started.empty()
    assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
    assert job.completion.http_status == 200
    assert store.text("job/results.ndjson") == RESULTS


async def test_a_retry_writes_its_results_beside_those_of_the_first_job(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        await answered(kit, job_id)
        await kit.until(job_id, lambda job: job.HasField("end_time"))
        retry = await kit.batch.RetryJob(pb.RetryJobRequest(api_name="hello", job_id=job_id))
        assert retry.job.results.s3_path == f"{store.kept.s3_path}/{retry.job.job_id}"
        worker = await kit.worker()
        await worker.open()
        await worker.work_off()
        await worker.answer_completion()
        await kit.until(retry.job.job_id, lambda job: job.HasField("end_time"))
    assert store.text("job/results.ndjson") == RESULTS
    assert store.text(f"job/{retry.job.job_id}/results.ndjson") == '{"batch":0,"reply":""}\n'
    assert store.text(f"job/{retry.job.job_id}/errors.ndjson") == ""


async def test_a_job_that_is_stopped_writes_nothing_and_its_results_can_still_be_read(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    async with running(tmp_path, driver, store) as kit:
        job_id = await kit.submit(ITEMS, results=store.kept)
        worker = await kit.worker()
        await worker.open()
        (lease, _) = await worker.lease(2)
        await worker.send(worker.result(lease, reply=b"1"))
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        request = pb.TailResultsRequest(api_name="hello", job_id=job_id)
        assert [b.reply_json async for m in kit.batch.TailResults(request) for b in m.batches] == ["1"]
    assert store.names() == []


async def test_a_path_outside_of_the_roots_is_refused(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    outside = resources_pb2.Results(s3_path=f"file://{tmp_path}/elsewhere")
    async with running(tmp_path, driver, store) as kit:
        with pytest.raises(grpc.aio.AioRpcError, match=r"only .* is open to jobs"):
            await kit.submit(ITEMS, results=outside)
    assert not (tmp_path / "elsewhere").exists()


async def test_results_of_any_size_get_into_a_bucket(
    tmp_path: Path, driver: ScriptedDriver, ministack: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, reply = "results-of-jobs", b'"%b"' % (b"x" * 1_500_000)
    async with s3_session(ministack.environ, monkeypatch) as session:
        client = await session.client("s3")
        await client.create_bucket(Bucket=bucket)
        async with scheduler(tmp_path, driver, objects=ObjectStores(session, [])) as kit:
            await kit.deploy()
            job_id = await kit.submit(
                str(list(range(12))), results=resources_pb2.Results(s3_path=f"s3://{bucket}/a b/")
            )
            worker = await kit.worker()
            await worker.open()
            for batch in range(12):
                await worker.until(lambda: batch in worker.leases)  # noqa: B023  # awaited within the turn
                await worker.send(worker.result(worker.leases[batch], reply=reply))
            await worker.answer_completion()
            job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_SUCCEEDED
        written = await client.get_object(Bucket=bucket, Key="a b/results.ndjson")
        assert await written["Body"].read() == b"".join(b'{"batch":%d,"reply":%b}\n' % (n, reply) for n in range(12))
        errors = await client.get_object(Bucket=bucket, Key="a b/errors.ndjson")
        assert await errors["Body"].read() == b""
