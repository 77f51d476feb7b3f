"""Streams, and a scheduler that comes and goes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import Category, CortexError
from services.gateway import scheduler as scheduler_module
from tests.integration.gateway_harness import JOB_ID, Gateway, job, running

WATCH = f"/batch/digits?jobID={JOB_ID}&watch=true"
GOOD = b'{"workers":1,"item_list":{"items":[1],"batch_size":1}}'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


class Stream:
    """An answer whose lines are read as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def line(self) -> Any:
        """The next line of JSON; None when the answer has ended as it should."""
        size = int(await self.reader.readline(), 16)
        chunk = await self.reader.readexactly(size + 2)
        assert chunk[:-2].count(b"\n") == (1 if size else 0)
        return json.loads(chunk) if size else None

    async def status(self) -> str:
        return str((await self.line())["job_status"]["status"])


async def watching(gateway: Gateway, path: str = WATCH) -> Stream:
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: application/x-ndjson\r\n" in head
    return Stream(reader, writer)


async def test_every_change_is_a_line_at_once(gateway: Gateway) -> None:
    stream = await watching(gateway)
    for status, name in ((Job.STATUS_ENQUEUING, "enqueuing"), (Job.STATUS_RUNNING, "running")):
        await gateway.asked.changes.put(job(status=status))
        assert await stream.status() == name
    await gateway.asked.changes.put(job(status=Job.STATUS_SUCCEEDED))
    await gateway.asked.changes.put(None)
    last = await stream.line()
    assert last["job_status"]["status"] == "succeeded"
    assert set(last) == set((await gateway.get(f"/batch/digits?jobID={JOB_ID}")).json)
    assert await stream.line() is None


async def test_a_config_with_line_ends_stays_on_its_line(gateway: Gateway) -> None:
    stream = await watching(gateway)
    await gateway.asked.changes.put(job(config_json='{\n  "a": "b\\n",\r\n  "c": 1.0\n}'))
    assert (await stream.line())["job_status"]["config"] == {"a": "b\n", "c": 1.0}, "the line is read as a whole"


async def test_a_client_that_leaves_ends_the_call(gateway: Gateway) -> None:
    stream = await watching(gateway)
    await gateway.asked.changes.put(job())
    await stream.line()
    assert not gateway.asked.stream_over.is_set()
    stream.writer.close()
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()


async def test_watching_goes_on_over_a_restart_of_the_scheduler(gateway: Gateway) -> None:
    stream = await watching(gateway)
    await gateway.asked.changes.put(job(status=Job.STATUS_ENQUEUING))
    assert await stream.status() == "enqueuing"
    await gateway.scheduler.kill()
    await gateway.scheduler.start()
    await gateway.asked.changes.put(job(status=Job.STATUS_RUNNING))
    assert await stream.status() == "running"


async def test_trouble_in_the_middle_is_the_last_line(gateway: Gateway) -> None:
    stream = await watching(gateway)
    await gateway.asked.changes.put(job())
    await stream.line()
    await gateway.asked.changes.put(CortexError("ledger.failed", "broken", Category.INTERNAL))
    assert await stream.line() == {"kind": "ledger.failed", "message": "broken"}
    assert await stream.line() is None


async def test_a_job_that_is_not_there_is_not_watched(gateway: Gateway) -> None:
    answer = await gateway.get("/batch/digits?jobID=nope&watch=true")
    assert (answer.status, answer.kind) == (404, "job.not_found")


async def test_streams_end_when_the_gateway_stops(gateway: Gateway) -> None:
    stream = await watching(gateway, f"/batch/digits/{JOB_ID}/logs?follow=true")
    await gateway.asked.stream_open.wait()
    gateway.stop.set()
    async with asyncio.timeout(10):
        assert await stream.line() is None
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()


async def test_a_request_in_flight_is_answered_before_the_gateway_stops(gateway: Gateway) -> None:
    gateway.asked.hold = asyncio.Event()
    submission = asyncio.create_task(gateway.submit(GOOD))
    await gateway.asked.arrived.wait()
    gateway.stop.set()
    gateway.asked.hold.set()
    assert (await submission).status == 200


async def test_a_restart_of_the_scheduler_is_not_noticed(gateway: Gateway) -> None:
    assert (await gateway.submit(GOOD)).status == 200
    await gateway.scheduler.kill()
    requests = [asyncio.create_task(gateway.submit(GOOD)) for _ in range(5)]
    requests.append(asyncio.create_task(gateway.get("/get")))
    done, waiting = await asyncio.wait(requests, timeout=0.3)
    assert (len(done), len(waiting)) == (0, 6)
    await gateway.scheduler.start()
    assert [answer.status for answer in await asyncio.gather(*requests)] == [200] * 6


async def test_a_scheduler_that_stays_away_is_said(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "CONNECT_S", 0.2)
    await gateway.scheduler.kill()
    for answer in (await gateway.submit(GOOD), await gateway.get("/digits"), await gateway.get("/get")):
        assert (answer.status, answer.kind) == (503, "system.unavailable")
        assert answer.headers["retry-after"] == "2"


async def test_a_submission_that_broke_off_is_not_sent_twice(gateway: Gateway) -> None:
    gateway.asked.hold = asyncio.Event()
    submission = asyncio.create_task(gateway.submit(GOOD))
    await gateway.asked.arrived.wait()
    await gateway.scheduler.kill()
    gateway.asked.hold = None
    await gateway.scheduler.start()
    answer = await submission
    assert (answer.status, answer.kind) == (503, "system.unavailable")
    assert "whether it did what was asked is not known" in answer.json["message"]
    assert len(gateway.asked.requests) == 1


async def test_a_question_that_broke_off_is_asked_again(gateway: Gateway) -> None:
    gateway.asked.hold = asyncio.Event()
    question = asyncio.create_task(gateway.get(f"/batch/digits?jobID={JOB_ID}"))
    await gateway.asked.arrived.wait()
    await gateway.scheduler.kill()
    gateway.asked.hold = None
    await gateway.scheduler.start()
    assert (await question).status == 200
    assert len(gateway.asked.requests) == 2
