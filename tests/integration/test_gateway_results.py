"""A job's results and errors as streams, and changes to a running job, through a real gateway."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import urllib3
from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1.batch_service_pb2 import TailResultsRequest, UpdateJobRequest
from cortex.batch.v1.resources_pb2 import Batch, Job
from services.common.errors import Category, CortexError
from tests.integration.gateway_harness import JOB_ID, Gateway, job, running

RESULTS = f"/batch/digits/{JOB_ID}/results"
ERRORS = f"/batch/digits/{JOB_ID}/errors"
MIB = 2**20


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


def reply(index: int, text: str = "true") -> Batch:
    return Batch(index=index, state=Batch.STATE_SUCCEEDED, reply_json=text)


async def told(gateway: Gateway, *pages: list[Batch] | CortexError | None) -> None:
    for page in pages:
        await gateway.asked.pages.put(page)


class Stream:
    """An answer that is read chunk by chunk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def part(self) -> bytes:
        """What was sent at once; nothing at the answer's end. Raises `IncompleteReadError` for one that broke off."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]


async def reading(gateway: Gateway, path: str) -> Stream:
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port, limit=64 * 1024)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: application/x-ndjson\r\n" in head
    return Stream(reader, writer)


async def test_replies_are_lines_as_the_container_sent_them(gateway: Gateway) -> None:
    replies = [
        '{"b":1,"a":12345678901234567890,"b":1.0}',
        '"no JSON: \\ud800"',
        '{\n  "pretty": [1,\r\n 2]\n}',
        "1e400",
    ]
    await told(
        gateway, [reply(0, replies[0]), reply(1, replies[1])], [reply(4, replies[2]), reply(5, replies[3])], None
    )
    answer = await gateway.get(f"{RESULTS}?first=0")
    assert gateway.asked.requests[0] == TailResultsRequest(api_name="digits", job_id=JOB_ID)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.body.decode() == (
        f'{{"batch":0,"reply":{replies[0]}}}\n{{"batch":1,"reply":{replies[1]}}}\n'
        '{"batch":4,"reply":{   "pretty": [1,   2] }}\n{"batch":5,"reply":1e400}\n'
    )


async def test_failed_batches_are_lines_as_in_a_page(gateway: Gateway) -> None:
    failed = Batch(index=3, state=Batch.STATE_FAILED, attempts=2, http_status=503, error="busy", items_json="[1.0,\n2]")
    failed.time.CopyFrom(Timestamp(seconds=1_700_000_000))
    lost = Batch(index=5, state=Batch.STATE_FAILED)
    await told(gateway, [failed, lost], None)
    answer = await gateway.get(f"{ERRORS}?follow=true&first=3")
    wanted = TailResultsRequest(api_name="digits", job_id=JOB_ID, failed=True, follow=True, first_index=3)
    assert gateway.asked.last == wanted
    assert answer.body.decode() == (
        '{"index":3,"state":"failed","attempts":2,"http_status":503,"error":"busy","time":"2023-11-14T22:13:20Z",'
        '"items":[1.0, 2]}\n'
        '{"index":5,"state":"failed","attempts":0,"http_status":0,"error":"","time":null,"items":null}\n'
    )


async def test_a_follower_is_answered_before_there_is_a_line_and_gets_each_at_once(gateway: Gateway) -> None:
    stream = await reading(gateway, f"{RESULTS}?follow=true")
    for index in (0, 1):
        await told(gateway, [reply(index)])
        assert await stream.part() == b'{"batch":%d,"reply":true}\n' % index
    await told(gateway, None)
    assert await stream.part() == b""


async def test_nothing_to_tell_is_an_empty_answer(gateway: Gateway) -> None:
    await told(gateway, None)
    answer = await gateway.get(RESULTS)
    assert (answer.status, answer.body) == (200, b"")
    assert (await gateway.request("HEAD", RESULTS)).status == 200


@pytest.mark.parametrize("path", [RESULTS, ERRORS])
async def test_trouble_before_the_first_line_has_a_status(gateway: Gateway, path: str) -> None:
    missing = await gateway.get(path.replace(JOB_ID, "nope") + "?follow=true")
    assert (missing.status, missing.kind) == (404, "job.not_found")
    gateway.asked.error = CortexError("job.results_not_kept", "it was not asked to", Category.CONFLICT)
    refused = await gateway.get(path)
    assert (refused.status, refused.kind) == (400, "job.results_not_kept")
    for query in ("first=x", "first=-1", "first=1.5", "follow=maybe"):
        answer = await gateway.get(f"{path}?{query}")
        assert (answer.status, answer.kind) == (400, "endpoints.invalid_query_param")


async def test_a_restart_of_the_scheduler_repeats_nothing_and_loses_nothing(gateway: Gateway) -> None:
    stream = await reading(gateway, f"{RESULTS}?follow=true")
    await told(gateway, [reply(0), reply(7)])
    assert (await stream.part()).count(b"\n") == 2
    await gateway.scheduler.kill()
    await gateway.scheduler.start()
    await told(gateway, [reply(8)], None)
    assert await stream.part() == b'{"batch":8,"reply":true}\n'
    assert await stream.part() == b""
    assert gateway.asked.last.first_index == 8
    assert gateway.asked.last.follow


async def test_trouble_in_the_middle_does_not_look_like_an_end(gateway: Gateway) -> None:
    stream = await reading(gateway, RESULTS)
    await told(gateway, [reply(0)])
    assert await stream.part() == b'{"batch":0,"reply":true}\n'
    await told(gateway, CortexError("ledger.failed", "broken", Category.INTERNAL))
    with pytest.raises(asyncio.IncompleteReadError):
        await stream.part()
    await told(gateway, [reply(0)], CortexError("ledger.failed", "broken", Category.INTERNAL))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        await gateway.get(RESULTS)


async def test_a_gateway_that_stops_does_not_look_like_an_end_either(gateway: Gateway) -> None:
    stream = await reading(gateway, f"{RESULTS}?follow=true")
    gateway.stop.set()
    with pytest.raises(asyncio.IncompleteReadError):
        await stream.part()
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()


async def test_a_client_that_leaves_ends_the_call(gateway: Gateway) -> None:
    stream = await reading(gateway, f"{ERRORS}?follow=true")
    await gateway.asked.stream_open.wait()
    stream.writer.close()
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()


async def test_the_scheduler_is_not_read_faster_than_the_client_reads(gateway: Gateway) -> None:
    stream = await reading(gateway, RESULTS)
    pages = 128
    text = f'"{"x" * MIB}"'
    for index in range(pages):
        await told(gateway, [reply(index, text)])
    await told(gateway, None)
    over, _ = await asyncio.wait({asyncio.create_task(gateway.asked.stream_over.wait())}, timeout=1)
    assert not over, "128 MiB are nowhere"
    size = 0
    while part := await stream.part():
        size += len(part)
    assert size == pages * (MIB + 2) + sum(len(f'{{"batch":{index},"reply":}}\n') for index in range(pages))


# Changes


@pytest.mark.parametrize("path", [f"/batch/digits?jobID={JOB_ID}", f"/digits?jobID={JOB_ID}"])
async def test_a_change_is_answered_with_the_job_as_it_is_then(gateway: Gateway, path: str) -> None:
    gateway.asked.jobs[JOB_ID] = job(status=Job.STATUS_RUNNING)
    answer = await gateway.request("PATCH", path, b'{"workers":5,"paused":true,"wokers":1}')
    assert answer.status == 200
    assert gateway.asked.last == UpdateJobRequest(api_name="digits", job_id=JOB_ID, workers=5, paused=True)
    assert answer.json["warnings"] == ["wokers: unknown field, ignored"]
    status = answer.json["job_status"]
    assert (status["workers"], status["paused"]) == (5, True)
    shown = (await gateway.get(path)).json
    assert answer.json == shown | {"warnings": answer.json["warnings"]}
    resumed = await gateway.request("PATCH", path, b'{"paused":false}')
    assert gateway.asked.last == UpdateJobRequest(api_name="digits", job_id=JOB_ID, paused=False)
    assert "paused" not in resumed.json["job_status"]
    assert "warnings" not in resumed.json


async def test_a_change_that_will_not_do_is_told(gateway: Gateway) -> None:
    path = f"/batch/digits?jobID={JOB_ID}"
    for body, kind in (
        (b"", "json.malformed"),
        (b"{}", "configreader.must_be_defined"),
        (b'{"workers":"5"}', "configreader.invalid_primitive_type"),
    ):
        refused = await gateway.request("PATCH", path, body)
        assert (refused.status, refused.kind) == (400, kind)
    assert gateway.asked.requests == []
    no_job = await gateway.request("PATCH", "/batch/digits", b'{"paused":true}')
    assert (no_job.status, no_job.kind) == (400, "endpoints.query_param_required")
    missing = await gateway.request("PATCH", "/batch/digits?jobID=nope", b'{"paused":true}')
    assert (missing.status, missing.kind) == (404, "job.not_found")
