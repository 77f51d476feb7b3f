"""Jobs whose items are in S3, over the scheduler's real wire and against servers that speak S3."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from services.common.grpc_errors import from_rpc_error
from services.scheduler.adapters.object_stores import ObjectStores
from tests.contract.object_servers import AwsServer
from tests.contract.test_object_store import s3_session
from tests.integration.file_jobs import ask, finish, split, stored_bytes, stream, submit, values, work
from tests.integration.observed_store import ObservedStore
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, scheduler


@pytest.fixture(params=["ministack", "moto", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> AwsServer:
    found: AwsServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def s3(server: AwsServer) -> Any:  # boto3 makes its clients' types at run time
    return server.s3()


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"inputs-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@asynccontextmanager
async def running(
    directory: Path, server: AwsServer, driver: ScriptedDriver
) -> AsyncIterator[tuple[Kit, ObservedStore]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with s3_session(server.environ, monkeypatch) as session:
            objects = ObservedStore(ObjectStores(session, ()))
            async with scheduler(directory, driver, objects=objects) as kit:
                await kit.deploy()
                yield kit, objects


async def test_objects_are_split_and_read_again_in_few_requests(
    tmp_path: Path, server: AwsServer, s3: Any, bucket: str
) -> None:
    items = values(30_000, seed=1)
    lines = b"".join(item + b"\n" for item in items)
    for number, start in enumerate(range(0, 30_000, 10_000)):
        s3.put_object(
            Bucket=bucket, Key=f"in/{number}.jsonl", Body=b"".join(i + b"\n" for i in items[start : start + 10_000])
        )
    s3.put_object(Bucket=bucket, Key="in/notes.txt", Body=b"no JSON")
    async with running(tmp_path, server, ScriptedDriver()) as (kit, objects):
        request = ask("delimited_files", f"s3://{bucket}/in", 50, includes=[f"s3://{bucket}/**.jsonl"])
        job, seen = await work(kit, request)
    assert job.status == Job.STATUS_SUCCEEDED
    assert stream(seen) == lines.replace(b"\n", b",")
    assert stored_bytes(tmp_path) < len(lines) / 10
    assert len(objects.reads) < len(seen) / 4


async def test_more_keys_than_are_on_a_page_are_listed(tmp_path: Path, server: AwsServer, s3: Any, bucket: str) -> None:
    keys = [f"images/{number:04}.png" for number in range(1_100)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    async with running(tmp_path, server, ScriptedDriver()) as (kit, _):
        job, seen = await work(kit, ask("file_path_lister", f"s3://{bucket}/images/", 100))
    assert job.total_batch_count == 11
    assert stream(seen) == b"".join(b'"s3://%s/%s",' % (bucket.encode(), key.encode()) for key in keys)


async def test_an_object_that_is_replaced_fails_its_batches(
    tmp_path: Path, server: AwsServer, s3: Any, bucket: str
) -> None:
    bodies = [b"".join(item + b"\n" for item in values(1_000, seed=seed)) for seed in (2, 3)]
    for name, body in zip("ab", bodies, strict=True):
        s3.put_object(Bucket=bucket, Key=name, Body=body)
    driver = ScriptedDriver()
    async with running(tmp_path, server, driver) as (kit, _):
        job_id = await submit(kit, ask("delimited_files", f"s3://{bucket}/", 100))
        await kit.until(job_id, split)
    s3.put_object(Bucket=bucket, Key="b", Body=bodies[1][::-1])
    async with running(tmp_path, server, driver) as (kit, _):
        worker = await kit.worker()
        await worker.open(credit=64)
        seen: dict[int, bytes] = {}
        job = await finish(kit, job_id, worker, seen)
    assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
    assert (job.batch_counts.succeeded, job.batch_counts.failed, job.metrics.failed) == (10, 10, 0)
    assert sorted(seen) == list(range(10))
    assert f"s3://{bucket}/b" in job.reason


@pytest.mark.parametrize(
    ("path", "kind"), [("s3://no-such-bucket-here/a", "aws."), ("/none", "batchapi.no_s3_files_found")]
)
async def test_what_is_not_there_is_refused(
    tmp_path: Path, server: AwsServer, bucket: str, path: str, kind: str
) -> None:
    async with running(tmp_path, server, ScriptedDriver()) as (kit, _):
        where = path if path.startswith("s3://") else f"s3://{bucket}{path}"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await submit(kit, ask("delimited_files", where, 1))
        assert from_rpc_error(error.value).kind.startswith(kind)
