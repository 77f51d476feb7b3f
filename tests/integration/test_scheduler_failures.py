"""Failed batches over the scheduler's real wire and its real ledger: listed, and run again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from services.common.errors import CortexError
from services.common.grpc_errors import from_rpc_error
from services.scheduler.usecases.input import batch_items, retry_input
from services.scheduler.usecases.output import batch_pages
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler

Batch = resources_pb2.Batch
RAW = ["1.0", "12345678901234567890", '{"b":1,"a":2,"b":3}', '"\\u00e9 é"', "1e400", "-0", "[ 1 ]"]


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


async def finish(kit: Kit, job_id: str, worker: ScriptedWorker, failing: set[int]) -> resources_pb2.Job:
    """Work a job off; the batches in `failing` fail."""
    while not worker.complete.is_set():
        await worker.until(lambda: bool(worker.leases) or worker.complete.is_set())
        if leases := list(worker.leases.values()):
            await worker.send(*(worker.result(lease, ok=lease.batch_index not in failing) for lease in leases))
    await worker.answer_completion()
    return await kit.until(job_id, lambda job: job.HasField("end_time"))


async def run(kit: Kit, items: str, failing: set[int], batch_size: int = 1) -> str:
    """A job that is over."""
    job_id = await kit.submit(items, batch_size=batch_size)
    worker = await kit.worker()
    await worker.open(credit=64)
    await finish(kit, job_id, worker, failing)
    return job_id


async def listed(kit: Kit, job_id: str, *states: Batch.State.ValueType, page_size: int = 0) -> list[Batch]:
    """All pages."""
    request = pb.ListBatchesRequest(api_name="hello", job_id=job_id, states=states, page_size=page_size)
    found: list[Batch] = []
    while True:
        page = await kit.batch.ListBatches(request)
        assert page.ByteSize() <= 4 << 20
        assert len(page.batches) <= (page_size or 100)
        found += page.batches
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def retry(kit: Kit, job_id: str, **fields: Any) -> resources_pb2.Job:
    return (await kit.batch.RetryJob(pb.RetryJobRequest(api_name="hello", job_id=job_id, **fields))).job


async def refused(kit: Kit, job_id: str, **fields: Any) -> CortexError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await retry(kit, job_id, **fields)
    return from_rpc_error(error.value)


async def test_failed_batches_are_listed_with_their_reasons_and_items(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await run(kit, f"[{','.join(RAW)}]", {1, 3}, batch_size=2)
        first, last = await listed(kit, job_id, Batch.STATE_FAILED)
        assert (first.index, first.state, first.attempts, first.http_status) == (1, Batch.STATE_FAILED, 1, 500)
        assert first.error == "the container answered 500"
        assert first.HasField("time")
        assert [first.items_json, last.items_json] == ['[{"b":1,"a":2,"b":3},"\\u00e9 é"]', "[[ 1 ]]"]
        everything = await listed(kit, job_id, page_size=1)
        assert [batch.index for batch in everything] == [0, 1, 2, 3]
        assert everything[0].state == Batch.STATE_SUCCEEDED
        assert (everything[0].http_status, everything[0].error) == (200, "")
        assert [batch.index for batch in await listed(kit, job_id, Batch.STATE_SUCCEEDED)] == [0, 2]
        assert await listed(kit, job_id, Batch.STATE_PENDING, Batch.STATE_LEASED) == []
    async with scheduler(tmp_path, driver) as kit:
        assert await listed(kit, job_id, page_size=2) == everything, "a restart forgets nothing"


async def test_open_batches_are_where_they_are(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_pages, "WINDOW", 2)
    monkeypatch.setattr(batch_pages, "MAX_WINDOWS", 2)
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(list(range(10))))
        worker = await kit.worker()
        await worker.open(credit=2)
        one, two = await worker.lease(2)
        await worker.send(worker.result(one), worker.result(two, ok=False))
        await worker.lease(2)
        states = {batch.index: Batch.State.Name(batch.state)[6:] for batch in await listed(kit, job_id, page_size=3)}
        ends = {0: "SUCCEEDED", 1: "FAILED", 2: "LEASED", 3: "LEASED"}
        assert states == ends | dict.fromkeys(range(4, 10), "PENDING")
        held = await listed(kit, job_id, Batch.STATE_LEASED)
        assert [(batch.index, batch.items_json, batch.HasField("time")) for batch in held] == [
            (2, "[2]", False),
            (3, "[3]", False),
        ]
        assert [batch.index for batch in await listed(kit, job_id, Batch.STATE_PENDING, page_size=1)] == [*range(4, 10)]
        mixed = await listed(kit, job_id, Batch.STATE_FAILED, Batch.STATE_LEASED)
        assert [batch.index for batch in mixed] == [1, 2, 3]
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        assert await listed(kit, job_id, Batch.STATE_LEASED) == [], "nobody works for a job that is over"
        assert [batch.index for batch in await listed(kit, job_id, Batch.STATE_PENDING)] == [*range(2, 10)]


async def test_a_page_of_large_batches_ends_early(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        items = [json.dumps(chr(97 + number) * 250_000) for number in range(20)]
        job_id = await run(kit, f"[{','.join(items)}]", set(range(20)))
        page = await kit.batch.ListBatches(pb.ListBatchesRequest(api_name="hello", job_id=job_id))
        assert 10 < len(page.batches) < 20
        found = await listed(kit, job_id, Batch.STATE_FAILED)
        assert [batch.items_json for batch in found] == [f"[{item}]" for item in items]


@pytest.mark.parametrize("token", ["x", "-1", "1" * 19, "٣"])
async def test_a_made_up_token_is_refused(tmp_path: Path, driver: ScriptedDriver, token: str) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit("[1]")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await kit.batch.ListBatches(pb.ListBatchesRequest(api_name="hello", job_id=job_id, page_token=token))
        assert from_rpc_error(error.value).kind == "job.invalid_page_token"


async def test_a_retry_is_a_job_of_just_the_failed_batches(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        request = pb.SubmitJobRequest(api_name="hello", workers=1, timeout_seconds=60, batch_timeout_seconds=5)
        request.config_json = '{"k": 1.50}'
        request.item_list.items_json = f"[{','.join(RAW)}]"
        request.item_list.batch_size = 2
        old = (await kit.batch.SubmitJob(request)).job
        worker = await kit.worker()
        await worker.open()
        await finish(kit, old.job_id, worker, {1, 3})
        failed = await listed(kit, old.job_id, Batch.STATE_FAILED)
        new = await retry(kit, old.job_id, workers=2)
        assert (new.retry_of, new.workers, new.total_batch_count) == (old.job_id, 2, 2)
        assert (new.config_json, new.timeout_seconds, new.batch_timeout_seconds) == ('{"k": 1.50}', 60, 5)
        assert new.trace_id not in ("", old.trace_id)
        assert (await kit.job(old.job_id)).retried_by == new.job_id
        assert "retry_of" not in json.loads(driver.job_specs[0])
        again = await kit.worker()
        await again.open()
        assert json.loads(driver.job_specs[-1])["retry_of"] == old.job_id
        seen: dict[int, bytes] = {}
        await again.work_off(seen)
        assert seen == {index: batch.items_json.encode() for index, batch in enumerate(failed)}
        await again.answer_completion()
        ended = await kit.until(new.job_id, lambda job: job.HasField("end_time"))
        assert (ended.status, ended.retry_of) == (Job.STATUS_SUCCEEDED, old.job_id)
        assert (await refused(kit, new.job_id)).kind == "job.no_failed_batches"
    async with scheduler(tmp_path, driver) as kit:
        assert (await kit.job(old.job_id)).retried_by == new.job_id
        assert (await kit.job(new.job_id)).retry_of == old.job_id


async def test_a_job_is_retried_once_and_its_retry_after_it(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        running = await kit.submit("[1,2]")
        assert (await refused(kit, running)).kind == "job.job_is_in_progress"
        worker = await kit.worker()
        await worker.open()
        await finish(kit, running, worker, {0, 1})
        assert (await refused(kit, running, workers=0)).kind == "configreader.must_be_greater_than_or_equal_to"
        both = await asyncio.gather(retry(kit, running), retry(kit, running), return_exceptions=True)
        (new,) = [job for job in both if isinstance(job, Job)]
        (late,) = [error for error in both if isinstance(error, grpc.aio.AioRpcError)]
        assert from_rpc_error(late).kind == "job.already_retried"
        told = await refused(kit, running)
        assert told.kind == "job.already_retried"
        assert f"as job {new.job_id}: wait" in told.message
        again = await kit.worker()
        await again.open()
        await finish(kit, new.job_id, again, {1})
        assert "retry that one" in (await refused(kit, running)).message
        third = await retry(kit, new.job_id)
        assert (third.retry_of, third.total_batch_count) == (new.job_id, 1)
        assert [batch.items_json for batch in await listed(kit, third.job_id)] == ["[2]"]


async def test_a_retry_has_the_workers_that_it_asks_for_even_if_the_first_jobs_followed_its_batches(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        scaling = resources_pb2.WorkerScaling(batches_per_worker=1, max_workers=1)
        request = pb.SubmitJobRequest(api_name="hello", worker_scaling=scaling)
        request.item_list.items_json, request.item_list.batch_size = "[1,2,3]", 1
        old = (await kit.batch.SubmitJob(request)).job
        worker = await kit.worker()
        await worker.open(credit=64)
        await finish(kit, old.job_id, worker, {0, 1, 2})
        new = await retry(kit, old.job_id, workers=3)
        assert new.workers == 3
        assert not new.HasField("worker_scaling")
        assert {(await kit.worker()).slot for _ in range(3)} == {0, 1, 2}


async def test_the_same_retry_asked_for_again_gives_the_same_job(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await run(kit, "[1,2]", {0, 1})
        both = await asyncio.gather(*(retry(kit, job_id, request_id="one") for _ in range(2)))
        new = both[0].job_id
        assert both[1].job_id == new
    async with scheduler(tmp_path, driver) as kit:
        assert (await retry(kit, job_id, request_id="one")).job_id == new
        assert (await kit.job(job_id)).retried_by == new
        assert (await refused(kit, job_id, request_id="one", workers=2)).kind == "job.idempotency_key_reused"
        assert (await refused(kit, job_id, request_id="two")).kind == "job.already_retried"
        again = pb.SubmitJobRequest(api_name="hello", workers=1, request_id="one")
        again.item_list.items_json, again.item_list.batch_size = "[1]", 1
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await kit.batch.SubmitJob(again)
        assert from_rpc_error(error.value).kind == "job.idempotency_key_reused"


async def test_a_job_may_be_retried_again_when_its_retry_ended_early(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await run(kit, "[1,2,3]", {0, 2})
        stopped = await retry(kit, job_id)
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=stopped.job_id))
        new = await retry(kit, job_id)
        assert new.total_batch_count == 2
        assert (await kit.job(job_id)).retried_by == new.job_id


async def test_many_failed_batches_are_copied_while_the_retry_works_and_after_a_restart(
    tmp_path: Path, driver: ScriptedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_input, "CHUNK_BATCHES", 7)
    monkeypatch.setattr(retry_input, "CHUNK_BYTES", 300)
    monkeypatch.setattr(batch_items, "RANGE_BYTES", 200)
    monkeypatch.setattr(batch_items, "GAP_BYTES", 50)
    items = [json.dumps({"n": number, "pad": "x" * (number % 90)}) for number in range(700)]
    failing = {number for number in range(700) if number % 10 in (0, 1, 2, 7)}
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        old = await run(kit, f"[{','.join(items)}]", failing)
        monkeypatch.setattr(kit.ledger, "add_segments", Never())
        new = await retry(kit, old)
        assert not new.HasField("total_batch_count")
        assert 0 < new.batch_counts.pending <= 7
    async with scheduler(tmp_path, driver) as kit:  # as after kill -9: only what the ledger holds is left
        job = await kit.until(new.job_id, lambda job: job.HasField("total_batch_count"))
        assert job.total_batch_count == len(failing)
        found = await listed(kit, new.job_id, page_size=50)
        assert [batch.items_json for batch in found] == [f"[{items[number]}]" for number in sorted(failing)]


class Never:
    """A write that is never done."""

    async def __call__(self, *_: object) -> None:
        await asyncio.Event().wait()
