"""Submissions whose items come as a stream, through a real gateway."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Results, RetryPolicy
from services.common.errors import Category, CortexError
from services.common.names import MAX_SUBMISSION_BYTES
from services.gateway import body
from tests.integration.gateway_harness import JOB_ID, Answer, Gateway, running

MIB = 2**20
NDJSON = {"Content-Type": "application/x-ndjson"}
QUERY = "/batch/digits?workers=2&batch_size=3"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


async def stream(gateway: Gateway, path: str, lines: bytes | Iterator[bytes], **headers: str) -> Answer:
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.request("POST", path, lines, NDJSON | more)


class Sender:
    """A client that sends a stream piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The whole answer; the connection may stay open."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return Answer(int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"])))


async def sending(gateway: Gateway, path: str = QUERY) -> Sender:
    sender = Sender(*await asyncio.open_connection(gateway.address.host, gateway.address.port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    sender.writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    return sender


async def test_with_workers_in_the_query_every_line_is_an_item(gateway: Gateway) -> None:
    gateway.asked.warnings = ["from the scheduler"]
    lines = b'1.0\n{"b":1,"a":2,"b":3}\r\n\n"\\ud800"'
    query = "timeout=60&batch_timeout=5&max_failed_percent=2.5&results=true&split_failed=1&zz=7"
    answer = await stream(gateway, f"{QUERY}&{query}", lines, Idempotency_Key="once-7")
    assert answer.status == 200
    assert list(answer.json) == [
        *("job_id", "api_name", "kind", "workers", "config", "api_id", "sqs_url", "timeout"),
        *("sqs_dead_letter_queue", "start_time", "created_time", "warnings"),
    ]
    assert (answer.json["job_id"], answer.json["workers"]) == (JOB_ID, 2)
    assert answer.json["warnings"] == ["?zz: unknown field, ignored", "from the scheduler"]
    job = pb.SubmitJobRequest(
        api_name="digits",
        request_id="once-7",
        workers=2,
        timeout_seconds=60,
        batch_timeout_seconds=5,
        max_failed_percent=2.5,
        results=Results(),
        split_failed=True,
    )
    assert gateway.asked.last == pb.SubmitJobStreamRequest(job=job, batch_size=3, first_line=1)
    assert gateway.asked.items == lines
    assert str(gateway.asked.metadata[-1]["traceparent"]).split("-")[1] == answer.headers["x-trace-id"]
    assert gateway.asked.metadata[-1]["x-request-id"] == answer.headers["x-request-id"]


HEADER = b'{"workers":2,"batch_size":3,"retries":{"max_attempts":2},"config":{"a":1.0},"wokers":1}'


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cut", [1, len(HEADER) - 1, len(HEADER), len(HEADER) + 1, len(HEADER) + 2, len(HEADER) + 4])
async def test_without_the_first_line_says_what_the_job_is(gateway: Gateway, cut: int, end: bytes) -> None:
    whole = HEADER + end + b"1\n2\n3"
    sender = await sending(gateway, "/digits?batch_size=9")
    await sender.send(whole[:cut])
    await sender.send(whole[cut:])
    await sender.end()
    answer = await sender.answer()
    assert answer.status == 200
    assert answer.json["warnings"] == [
        "?batch_size: ignored, the first line says what the job is",
        "wokers: unknown field, ignored",
    ]
    job = pb.SubmitJobRequest(
        api_name="digits", workers=2, config_json='{"a":1.0}', retries=RetryPolicy(max_attempts=2)
    )
    assert gateway.asked.last == pb.SubmitJobStreamRequest(job=job, batch_size=3, first_line=2)
    assert gateway.asked.items == b"1\n2\n3"


async def test_a_stream_has_no_limit_of_size_and_goes_on_in_small_pieces(gateway: Gateway) -> None:
    def lines() -> Iterator[bytes]:
        yield HEADER + b"\n"
        for number in range(48):
            yield b"%d" % number + b" " * MIB + b"\n"

    assert (await stream(gateway, "/batch/digits", lines())).status == 200
    assert len(gateway.asked.items) > 4 * MAX_SUBMISSION_BYTES
    assert gateway.asked.items.split() == [b"%d" % number for number in range(48)]
    assert gateway.asked.largest_message <= body.CHUNK_BYTES == 256 * 1024


async def test_an_item_goes_on_before_the_next_one_comes(gateway: Gateway) -> None:
    sender = await sending(gateway)
    for item in (b"1\n", b"2\n"):
        await sender.send(item)
        await gateway.asked.arrived.wait()
        gateway.asked.arrived.clear()
        assert gateway.asked.items.endswith(item)
    await sender.end()
    assert (await sender.answer()).status == 200


async def test_a_client_is_not_read_faster_than_the_scheduler_takes_it(gateway: Gateway) -> None:
    gateway.asked.hold = asyncio.Event()
    sender = await sending(gateway)

    async def send_all() -> None:
        for _ in range(96):
            await sender.send(b" " * (MIB - 1) + b"\n")
        await sender.end()

    sends = asyncio.create_task(send_all())
    done, _ = await asyncio.wait({sends}, timeout=1)
    assert not done
    gateway.asked.hold.set()
    await sends
    assert (await sender.answer()).status == 200
    assert len(gateway.asked.items) == 96 * MIB


@pytest.mark.parametrize(("path", "start", "line"), [(QUERY, b"", 3), ("/batch/digits", HEADER + b"\n", 4)])
async def test_a_bad_line_is_refused_while_the_client_still_sends(
    gateway: Gateway, path: str, start: bytes, line: int
) -> None:
    sender = await sending(gateway, path)
    await sender.send(start + b"\n\nbad\n")
    answer = await sender.answer()
    assert (answer.status, answer.kind) == (400, "json.malformed")
    assert answer.json["message"] == f"line {line} is not valid JSON"
    assert answer.headers["connection"] == "close"
    await sender.send(b"1\n")
    await sender.end()
    assert await sender.reader.read() == b"", "and the connection is over"


async def test_a_client_that_only_writes_at_first_sees_the_refusal(gateway: Gateway) -> None:
    def lines() -> Iterator[bytes]:
        yield b"bad\n"
        for _ in range(30):
            yield b" " * MIB

    answer = await stream(gateway, QUERY, lines())
    assert (answer.status, answer.kind) == (400, "json.malformed")


async def test_a_job_that_is_there_already_is_answered_at_once(gateway: Gateway) -> None:
    gateway.asked.ends_early = True
    sender = await sending(gateway)
    await sender.send(b"1\n")
    answer = await sender.answer()
    assert (answer.status, answer.json["job_id"]) == (200, JOB_ID)
    assert answer.headers["connection"] == "close"
    sender.writer.close()


async def test_a_client_that_breaks_off_breaks_the_stream_off(gateway: Gateway) -> None:
    sender = await sending(gateway)
    await sender.send(b"1\n")
    await gateway.asked.arrived.wait()
    assert not gateway.asked.stream_over.is_set()
    sender.writer.close()
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()


async def test_a_client_may_wait_for_100_continue(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    head = f"POST {QUERY} HTTP/1.1\r\nHost: localhost\r\nContent-Type: Application/X-NDJSON; charset=utf-8\r\n"
    writer.write(f"{head}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"1\n2\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    assert gateway.asked.items == b"1\n2\n"
    writer.close()


async def test_a_refused_client_that_waits_for_100_continue_need_not_send(gateway: Gateway) -> None:
    sender = Sender(*await asyncio.open_connection(gateway.address.host, gateway.address.port))
    head = "POST /batch/digits?workers=two HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    sender.writer.write(f"{head}Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n".encode())
    answer = await sender.answer()
    assert (answer.status, answer.kind) == (400, "endpoints.invalid_query_param")
    sender.writer.close()


async def test_a_stream_cannot_be_checked_only(gateway: Gateway) -> None:
    answer = await stream(gateway, f"{QUERY}&dryRun=true", b"1\n")
    assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert b"leave dryRun out" in answer.body
    assert gateway.asked.requests == []


@pytest.mark.parametrize(
    ("path", "lines", "kind", "said"),
    [
        ("/batch/digits", b"", "json.malformed", "the first line is empty"),
        ("/batch/digits", b"\n1\n", "json.malformed", "the first line is empty"),
        ("/batch/digits", b"[1]\n[2]\n", "json.malformed", "give these two in the query"),
        ("/batch/digits", b'{"text":"an item"}\n', "configreader.must_be_defined", "workers: "),
        ("/batch/digits?workers=two", b"1\n", "endpoints.invalid_query_param", "`workers` must be an integer, not"),
        ("/batch/digits?workers=1&results=maybe", b"1\n", "endpoints.invalid_query_param", "true or false"),
        ("/batch/digits?workers=1&dryRun=maybe", b"1\n", "endpoints.invalid_query_param", "true or false"),
    ],
)
async def test_what_is_wrong_with_the_head_never_reaches_the_scheduler(
    gateway: Gateway, path: str, lines: bytes, kind: str, said: str
) -> None:
    answer = await stream(gateway, path, lines)
    assert (answer.status, answer.kind) == (400, kind)
    assert said in answer.json["message"]
    assert gateway.asked.requests == []


async def test_an_encoded_stream_is_refused(gateway: Gateway) -> None:
    answer = await stream(gateway, QUERY, b"\x1f\x8b", Content_Encoding="gzip")
    assert (answer.status, answer.kind) == (400, "endpoints.invalid_header")


async def test_a_first_line_without_end_is_refused(gateway: Gateway) -> None:
    def lines() -> Iterator[bytes]:
        for _ in range(12):
            yield b" " * MIB

    answer = await stream(gateway, "/batch/digits", lines())
    assert (answer.status, answer.kind) == (413, "batchapi.request_size_exceeds_limit")


async def test_a_first_line_that_does_not_come_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    sender = await sending(gateway, "/batch/digits")
    await sender.send(b"{")
    answer = await sender.answer()
    assert (answer.status, answer.kind) == (408, "endpoints.request_timeout")
    sender.writer.close()


async def test_the_schedulers_errors_are_passed_on(gateway: Gateway) -> None:
    missing = await stream(gateway, "/batch/nothing?workers=1&batch_size=1", b"1\n")
    assert (missing.status, missing.kind) == (404, "resources.api_not_deployed")
    gateway.asked.error = CortexError("ledger.storage_full", "the disk is full", Category.STORAGE_FULL)
    full = await stream(gateway, QUERY, b"1\n")
    assert (full.status, full.kind) == (507, "ledger.storage_full")


async def test_a_scheduler_that_goes_away_in_the_middle_is_told_with_the_job(gateway: Gateway) -> None:
    sender = await sending(gateway)
    await sender.send(b"1\n2\n")
    await gateway.asked.arrived.wait()
    await gateway.scheduler.kill()
    answer = await sender.answer()
    assert (answer.status, answer.kind) == (503, "system.unavailable")
    assert f"of job {JOB_ID} at least" in answer.json["message"]
    assert len(gateway.asked.requests) == 1, "sent once"
    sender.writer.close()


async def test_a_gateway_that_stops_cuts_a_stream_off(gateway: Gateway) -> None:
    sender = await sending(gateway)
    await sender.send(b"1\n")
    await gateway.asked.arrived.wait()
    gateway.stop.set()
    answer = await sender.answer()
    assert (answer.status, answer.kind) == (503, "system.unavailable")
    # The job is named once the scheduler's answer with its id has come too.
    assert re.search(rf"cut off(; job {JOB_ID} ends as enqueue_failed)?$", answer.json["message"])
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()
    sender.writer.close()


async def test_a_stream_that_has_come_whole_is_answered_before_the_gateway_stops(gateway: Gateway) -> None:
    gateway.asked.hold = asyncio.Event()
    submission = asyncio.create_task(stream(gateway, QUERY, b"1\n"))
    await gateway.asked.stream_open.wait()
    gateway.stop.set()
    gateway.asked.hold.set()
    assert json.loads((await submission).body)["job_id"] == JOB_ID
