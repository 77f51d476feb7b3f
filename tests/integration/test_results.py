"""The containers' replies: from the container through dequeuer, stream and ledger to those who read them."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from services.common.names import CHANNEL_OPTIONS
from services.common.replies import MAX_KEPT_REPLY_BYTES
from tests.integration import scheduler_kit
from tests.integration.dequeuer_kit import Asked, surroundings
from tests.integration.dequeuer_kit import Kit as DequeuerKit
from tests.integration.scheduler_kit import Kit, ScriptedDriver, ScriptedWorker, scheduler

BATCHES = 600
KEPT = resources_pb2.Results()


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
async def kit(tmp_path: Path, driver: ScriptedDriver) -> AsyncIterator[Kit]:
    async with scheduler(tmp_path, driver) as running:
        await running.deploy()
        yield running


async def tail(kit: Kit, job_id: str, **wanted: Any) -> list[resources_pb2.Batch]:
    """All that there is to read."""
    request = pb.TailResultsRequest(api_name="hello", job_id=job_id, **wanted)
    async with asyncio.timeout(20):
        return [batch async for message in kit.batch.TailResults(request) for batch in message.batches]


async def replies(kit: Kit, job_id: str, **wanted: Any) -> dict[int, str]:
    return {batch.index: batch.reply_json for batch in await tail(kit, job_id, **wanted)}


async def started(kit: Kit, job_id: str, **how: Any) -> ScriptedWorker:
    worker = await kit.worker()
    await worker.open(**how)
    return worker


async def finish(worker: ScriptedWorker, batch: int, reply: bytes = b"", *, ok: bool = True) -> None:
    """Wait until the worker holds a batch, and have its outcome recorded."""
    await worker.until(lambda: batch in worker.leases)
    await worker.send(worker.result(worker.leases[batch], ok=ok, reply=reply))


class TestReading:
    async def test_replies_are_read_in_the_batches_order_while_the_job_runs(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3,4]", results=KEPT)
        worker = await started(kit, job_id)
        await finish(worker, 1, b'{"n": 2}')
        assert worker.keeps_replies
        assert await replies(kit, job_id) == {1: '{"n": 2}'}
        await finish(worker, 0, b"1.0")
        assert list((await replies(kit, job_id)).items()) == [(0, "1.0"), (1, '{"n": 2}')]
        await finish(worker, 2, ok=False)
        await finish(worker, 3, b"four")
        assert await replies(kit, job_id, first_index=1) == {1: '{"n": 2}', 3: '"four"'}
        await worker.answer_completion()
        await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert await replies(kit, job_id) == {0: "1.0", 1: '{"n": 2}', 3: '"four"'}
        (failed,) = await tail(kit, job_id, failed=True)
        assert (failed.index, failed.items_json, failed.error, failed.http_status, failed.reply_json) == (
            *(2, "[3]", "the container answered 500", 500, ""),
        )

    async def test_a_job_that_keeps_nothing_says_how_to_keep_it_and_still_shows_its_failures(self, kit: Kit) -> None:
        job_id = await kit.submit("[1]")
        worker = await started(kit, job_id)
        (lease,) = await worker.lease(1)
        assert not worker.keeps_replies
        with pytest.raises(grpc.aio.AioRpcError, match="results"):
            await replies(kit, job_id)
        await worker.send(worker.result(lease, ok=False))
        assert [batch.index for batch in await tail(kit, job_id, failed=True)] == [0]

    async def test_a_reply_that_is_sent_unasked_is_not_kept(self, kit: Kit) -> None:
        job_id = await kit.submit("[1]")
        worker = await started(kit, job_id)
        (lease,) = await worker.lease(1)
        await worker.send(worker.result(lease, reply=b"unasked"))
        assert await kit.ledger.replies(job_id, 0, None, 100) == []

    async def test_the_first_reply_that_was_recorded_stands(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2]", results=KEPT)
        worker = await started(kit, job_id)
        lease, other = await worker.lease(2)
        await worker.send(worker.result(lease, reply=b"1"))
        worker.recorded.clear()
        await worker.send(worker.result(lease, reply=b"2"))
        await worker.send(worker.result(other, reply=b"3"))
        assert await replies(kit, job_id) == {0: "1", 1: "3"}

    async def test_an_unknown_job_is_said_to_be_unknown(self, kit: Kit) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="there is no job"):
            await replies(kit, "0000000000000000")

    async def test_many_large_replies_come_in_messages_that_every_client_takes(self, kit: Kit) -> None:
        job_id = await kit.submit(str(list(range(8))), results=KEPT)
        worker = await started(kit, job_id, credit=8)
        for batch in range(8):
            await finish(worker, batch, b'"%b"' % (b"x" * 1_500_000))
        assert [(i, len(text)) for i, text in (await replies(kit, job_id)).items()] == [
            (i, 1_500_002) for i in range(8)
        ]

    async def test_the_largest_reply_goes_alone(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3]", results=KEPT)
        worker = await started(kit, job_id)
        large = b'"%b"' % (b"x" * (MAX_KEPT_REPLY_BYTES - 2))
        for batch, reply in enumerate((b"0", large, b"2")):
            await finish(worker, batch, reply)
        async with grpc.aio.insecure_channel(kit.address, options=CHANNEL_OPTIONS) as channel:
            stub = type(kit.batch)(channel)
            request = pb.TailResultsRequest(api_name="hello", job_id=job_id)
            sizes = [[len(b.reply_json) for b in m.batches] async for m in stub.TailResults(request)]
        assert sizes == [[1], [len(large)], [1]]


class TestFollowing:
    async def test_a_follower_gets_every_batch_in_order_and_none_before_those_ahead_of_it(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3]", results=KEPT)
        worker = await started(kit, job_id)
        request = pb.TailResultsRequest(api_name="hello", job_id=job_id, follow=True)
        async with asyncio.timeout(20), aclosing(_batches(kit, request)) as following:
            await finish(worker, 1, b"1")
            ahead = asyncio.ensure_future(anext(following))
            await finish(worker, 0, b"0")
            assert (await ahead).index == 0
            assert (await anext(following)).index == 1
            await finish(worker, 2, b"2")
            assert (await anext(following)).index == 2
            await worker.answer_completion()
            assert await anext(following, None) is None

    async def test_a_job_that_is_stopped_ends_its_followers_with_all_that_was_recorded(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3]", results=KEPT)
        worker = await started(kit, job_id)
        following = asyncio.create_task(replies(kit, job_id, follow=True))
        await finish(worker, 1, b"1")
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        assert await following == {1: "1"}

    async def test_failed_batches_are_followed_as_well(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3]")
        worker = await started(kit, job_id)
        following = asyncio.create_task(tail(kit, job_id, follow=True, failed=True))
        for batch in range(3):
            await finish(worker, batch, ok=batch != 1)
        await worker.answer_completion()
        assert [(batch.index, batch.items_json) for batch in await following] == [(1, "[2]")]

    async def test_of_a_batch_that_is_halved_its_halves_are_told_and_not_itself(self, kit: Kit) -> None:
        job_id = await kit.submit("[1,2,3]", batch_size=2, results=KEPT, split_failed=True)
        following = asyncio.create_task(replies(kit, job_id, follow=True))
        failing = asyncio.create_task(tail(kit, job_id, follow=True, failed=True))
        worker = await started(kit, job_id)
        await finish(worker, 0, ok=False)  # batches 2 and 3 take its place
        await finish(worker, 1, b"three")
        await finish(worker, 2, b"one")
        await finish(worker, 3, ok=False)
        await worker.answer_completion()
        assert await following == {1: '"three"', 2: '"one"'}
        assert [(batch.index, batch.items_json) for batch in await failing] == [(3, "[2]")]


async def _batches(kit: Kit, request: pb.TailResultsRequest) -> AsyncGenerator[resources_pb2.Batch, None]:
    async for message in kit.batch.TailResults(request):
        for batch in message.batches:
            yield batch


def squares(asked: Asked) -> bytes:
    """An answer by which one can tell the batch."""
    (item,) = json.loads(asked.body) if asked.path == "/" else (0,)
    return b'{"square": %d}\n' % (item * item)


async def join(kit: DequeuerKit, scheduler: Kit, job_id: str) -> None:
    """Let the dequeuer be the job's worker."""
    worker = await scheduler.worker()
    kit.spec.job_id, kit.spec.worker_id, kit.spec.token = job_id, worker.id, worker.token
    kit.spec.scheduler_address = scheduler.address
    kit.start()


async def test_over_two_crashes_of_the_scheduler_each_succeeded_batch_has_its_own_reply(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    job_id = ""
    seen: dict[int, str] = {}
    async with surroundings(tmp_path, concurrency=4) as kit:
        kit.container.reply = squares
        for crash_after in (100, 350, None):
            async with scheduler_kit.scheduler(tmp_path, driver) as running:
                if not job_id:
                    await running.deploy()
                    job_id = await running.submit(str(list(range(BATCHES))), results=KEPT)
                    await join(kit, running, job_id)
                request = pb.TailResultsRequest(
                    api_name="hello", job_id=job_id, follow=True, first_index=max(seen, default=-1) + 1
                )
                async with asyncio.timeout(60), aclosing(_batches(running, request)) as following:
                    async for batch in following:  # a follower goes on where the crash cut it off
                        assert batch.index == len(seen)
                        seen[batch.index] = batch.reply_json
                        if len(seen) == crash_after:
                            break
                if crash_after is None:
                    job = await running.until(job_id, lambda job: job.HasField("end_time"))
                    assert await kit.ended() == 0
                    assert await replies(running, job_id) == seen
        assert job.batch_counts.succeeded == BATCHES
    assert seen == {index: f'{{"square": {index**2}}}' for index in range(BATCHES)}
