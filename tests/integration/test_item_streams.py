"""Jobs whose items come one after the other, over the scheduler's real wire; the workers are scripted."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from services.common.errors import CortexError
from services.common.grpc_errors import from_rpc_error
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


class Client:
    """One stream."""

    def __init__(self, kit: Kit, **fields: str) -> None:
        self.call = kit.batch.SubmitJobStream()
        self.fields = fields

    async def begin(self, batch_size: int = 2, first_line: int = 0) -> str:
        first = pb.SubmitJobStreamRequest(batch_size=batch_size, first_line=first_line)
        first.job.MergeFrom(pb.SubmitJobRequest(api_name="hello", workers=1, **self.fields))  # type: ignore[arg-type]  # mypy cannot see which
        await self.call.write(first)
        async with asyncio.timeout(10):
            answer = await self.call.read()
        assert isinstance(answer, pb.SubmitJobStreamResponse)
        return answer.job.job_id

    async def lines(self, text: bytes) -> None:
        await self.call.write(pb.SubmitJobStreamRequest(ndjson=text))

    async def items(self, *items: str) -> None:
        await self.call.write(pb.SubmitJobStreamRequest(items_json=items))

    async def until_stored(self, items: int) -> None:
        """Wait until so many are."""
        async with aclosing(self._answers()) as answers:
            async for answer in answers:
                if answer.items >= items:
                    return

    async def end(self) -> pb.SubmitJobStreamResponse:
        """Say that these were all; the last answer."""
        await self.call.done_writing()
        *_, last = [answer async for answer in self._answers()]
        return last

    async def refusal(self) -> CortexError:
        """How the stream ends."""
        try:
            answers = [answer async for answer in self._answers()]
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        raise AssertionError(f"the stream ended well: {answers[-1]}")

    async def _answers(self) -> AsyncGenerator[pb.SubmitJobStreamResponse, None]:
        async with asyncio.timeout(10):
            while (answer := await self.call.read()) is not grpc.aio.EOF:
                assert isinstance(answer, pb.SubmitJobStreamResponse)
                yield answer


async def test_items_go_to_work_as_they_come_and_the_job_ends_after_the_stream(
    tmp_path: Path, driver: ScriptedDriver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit)
        job_id = await client.begin(batch_size=2)
        worker = await kit.worker()
        await worker.open()
        await client.lines(b'{"a": 1.0}\n[2')
        await client.lines(b",3]\n")
        [lease] = await worker.lease(1)
        assert lease.payload == b'[{"a": 1.0},[2,3]]'
        await worker.send(worker.result(lease))
        await client.items("12345678901234567890", ' "x" ', "null")
        await client.until_stored(5)
        assert not (await kit.job(job_id)).HasField("total_batch_count")
        [lease] = await worker.lease(1)
        assert lease.payload == b'[12345678901234567890,"x"]'
        last = await client.end()
        assert (last.job.job_id, last.job.total_batch_count, last.items) == (job_id, 3, 5)
        seen: dict[int, bytes] = {}
        await worker.work_off(seen)
        assert seen[2] == b"[null]", "the last batch is shorter"
        await worker.answer_completion()
        assert (await kit.until(job_id, lambda job: job.HasField("end_time"))).status == Job.STATUS_SUCCEEDED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1\n2\n{]\n", "line 12, item 3"),
        (b"1\n[", "line 11, item 2 is not valid JSON: the stream ends in the middle of it"),
        (b"1\n", ""),
        (b"", "there are no items"),
    ],
    ids=["bad", "bad end", "cut", "empty"],
)
async def test_a_stream_that_goes_wrong_ends_its_job_and_says_where(
    tmp_path: Path, driver: ScriptedDriver, text: bytes, message: str
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit)
        job_id = await client.begin(first_line=10)
        await client.lines(text)
        if message:
            await client.call.done_writing()
            refusal = await client.refusal()
            assert message in refusal.message
            assert f"job {job_id} " in refusal.message
            assert refusal.kind == ("json.malformed" if text else "job.no_data_found_in_job_submission")
        else:
            await client.until_stored(1)
            client.call.cancel()
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_ENQUEUE_FAILED
        assert (message or "broke off after 1 items had arrived: its client went away") in job.reason


async def test_a_restart_ends_a_stream_and_its_job(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit)
        job_id = await client.begin()
        await client.lines(b"1\n2\n3\n")
        await client.until_stored(3)
    async with scheduler(tmp_path, driver) as kit:
        job = await kit.until(job_id, lambda job: job.HasField("end_time"))
        assert job.status == Job.STATUS_ENQUEUE_FAILED
        assert "broke off after 3 items had arrived: the scheduler was restarted" in job.reason


async def test_a_job_that_is_stopped_ends_its_stream(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit)
        job_id = await client.begin()
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        refusal = await client.refusal()
        assert refusal.kind == "job.job_is_not_in_progress"
        assert "stopped" in refusal.message
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED


async def test_a_request_that_is_repeated_gives_the_same_job(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit, request_id="one")
        job_id = await client.begin()
        twin = Client(kit, request_id="one")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await twin.begin()
        assert from_rpc_error(error.value).kind == "job.stream_in_progress"
        await client.lines(b"1\n2\n3\n")
        assert (await client.end()).job.job_id == job_id

        again = Client(kit, request_id="one")
        assert await again.begin() == job_id
        await again.items("1", "2", "3")
        last = await again.end()
        assert (last.job.job_id, last.items) == (job_id, 3)

        other = Client(kit, request_id="one")
        await other.begin()
        await other.items("1", "2", "4")
        await other.call.done_writing()
        assert (await other.refusal()).kind == "job.idempotency_key_reused"
        wider = Client(kit, request_id="one")
        await wider.begin(batch_size=3)
        await wider.items("1", "2", "3")
        await wider.call.done_writing()
        assert (await wider.refusal()).kind == "job.idempotency_key_reused"


async def test_a_stream_that_broke_off_may_be_repeated(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit, request_id="one")
        broken = await client.begin()
        await client.lines(b"1\n{\n2\n")
        await client.refusal()
        again = Client(kit, request_id="one")
        job_id = await again.begin()
        assert job_id != broken
        await again.items("1", "2")
        assert (await again.end()).job.job_id == job_id


@pytest.mark.parametrize("cuts", [1, 7, 1000])
async def test_however_a_stream_is_cut_each_item_is_in_one_batch(
    tmp_path: Path, driver: ScriptedDriver, cuts: int
) -> None:
    items = [json.dumps({"n": number, "t": "é" * (number % 50)}, ensure_ascii=False) for number in range(1000)]
    text = "\r\n".join(items).encode()
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        client = Client(kit)
        job_id = await client.begin(batch_size=7)
        size = max(1, len(text) // cuts)
        for start in range(0, len(text), size):
            await client.lines(text[start : start + size])
        await client.end()
        worker = await kit.worker()
        await worker.open(credit=64)
        seen: dict[int, bytes] = {}
        await worker.work_off(seen)
        stream = itertools.chain.from_iterable(json.loads(payload) for _, payload in sorted(seen.items()))
        assert list(stream) == [json.loads(item) for item in items]
        assert (await kit.job(job_id)).total_batch_count == 143


async def test_what_is_asked_for_is_checked_before_the_first_item(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        for first, kind in (
            (pb.SubmitJobStreamRequest(), "configreader.must_be_defined"),
            (pb.SubmitJobStreamRequest(job=pb.SubmitJobRequest(api_name="hello", workers=1)), "configreader.must_be_d"),
            (
                pb.SubmitJobStreamRequest(
                    job=pb.SubmitJobRequest(api_name="hello", workers=1, item_list=pb.ItemList(batch_size=1)),
                    batch_size=1,
                ),
                "job.conflicting_fields",
            ),
            (
                pb.SubmitJobStreamRequest(job=pb.SubmitJobRequest(api_name="nobody", workers=1), batch_size=1),
                "resources.api_not_deployed",
            ),
        ):
            client = Client(kit)
            await client.call.write(first)
            await client.call.done_writing()
            assert (await client.refusal()).kind.startswith(kind)
