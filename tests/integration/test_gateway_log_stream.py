"""`/streamlogs`: a job's log on a websocket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cortex.batch.v1.batch_service_pb2 import LogLine
from services.common.errors import Category, CortexError
from tests.integration.gateway_harness import JOB_ID, Gateway, running

PATH = f"/streamlogs/digits?jobID={JOB_ID}"
HANDSHAKE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


def url(gateway: Gateway, path: str = PATH) -> str:
    return f"ws://{gateway.address.host}:{gateway.address.port}{path}"


def log(gateway: Gateway, *messages: str) -> None:
    for message in messages:
        gateway.asked.lines.put_nowait(LogLine(worker=0, container="api", message=message))


async def rest(client: ClientConnection) -> tuple[str, int]:
    """What is still sent, and the close code."""
    text = ""
    try:
        while True:
            async with asyncio.timeout(10):
                text += str(await client.recv())
    except ConnectionClosed as closed:
        return text, closed.rcvd.code if closed.rcvd is not None else 1006


async def refused(gateway: Gateway, path: str = PATH, **headers: str) -> tuple[int, str]:
    """Status and kind of an answer that opens no websocket."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(InvalidStatus) as error:
        await connect(url(gateway, path), additional_headers=named, proxy=None)
    response = error.value.response
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert len(response.body) <= 1024
    return response.status_code, json.loads(response.body)["kind"]


async def test_the_log_is_sent_line_by_line_and_to_its_end(gateway: Gateway) -> None:
    log(gateway, "first", "", "ünï")
    async with connect(url(gateway), proxy=None) as client:
        assert [await client.recv() for _ in range(3)] == ["first\n", "\n", "ünï\n"]
        log(gateway, "later")
        assert await client.recv() == "later\n"
        gateway.asked.lines.put_nowait(None)
        assert await rest(client) == ("", 1000)
    assert gateway.asked.last.follow
    assert gateway.asked.last.job_id == JOB_ID
    assert client.response is not None
    assert client.response.headers["x-request-id"]


async def test_a_record_in_json_is_shown_as_cortex_shows_it(gateway: Gateway) -> None:
    log(gateway, '{"level":"info","message":"hello"}', '{"message":"oh","exc_info":"Traceback"}', '{"message":""}')
    log(gateway, '{"no":"message"}', '{"message":7}', "{not json", '"message"')
    gateway.asked.lines.put_nowait(None)
    async with connect(url(gateway), proxy=None) as client:
        shown, _ = await rest(client)
    assert shown == 'hello\noh\nTraceback\n\n{"no":"message"}\n{"message":7}\n{not json\n"message"\n'


async def test_it_works_over_the_unix_socket(gateway: Gateway) -> None:
    log(gateway, "hello")
    async with unix_connect(str(gateway.unix_socket), f"ws://any.name{PATH}") as client:
        assert await client.recv() == "hello\n"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/streamlogs/digits", (400, "endpoints.logs_job_id_required")),
        ("/streamlogs/nope", (404, "resources.api_not_deployed")),
        ("/streamlogs/digits?jobID=1", (404, "job.not_found")),
        ("/streamlogs/digits?jobID=" + "x" * 5000, (404, "job.not_found")),
        ("/get", (404, "endpoints.not_found")),
        ("/digits", (404, "endpoints.not_found")),
    ],
)
async def test_an_error_is_told_in_json_before_it_opens(gateway: Gateway, path: str, answer: tuple[int, str]) -> None:
    assert await refused(gateway, path) == answer


async def test_each_has_one_line_in_the_log(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await refused(gateway, "/streamlogs/nope")
    gateway.asked.lines.put_nowait(None)
    async with connect(url(gateway), proxy=None) as client:
        await rest(client)
    await gateway.get("/readyz")  # by then the others are noted
    others = {"websockets.client", "uvicorn.access"}  # the test's own, and off in a gateway
    lines = [record.getMessage() for record in caplog.records if record.name not in others]
    assert [line.partition(" ms")[0].rpartition(" ")[0] for line in lines] == [
        "GET /streamlogs/nope 404",
        "GET /streamlogs/digits 101",
    ]


async def test_pages_and_strange_clients_are_kept_out(gateway: Gateway) -> None:
    assert await refused(gateway, Origin="https://evil.example") == (403, "endpoints.cross_site_request")
    assert await refused(gateway, Sec_Fetch_Site="cross-site") == (403, "endpoints.cross_site_request")
    assert await refused(gateway, CortexAPIVersion="0.41.0") == (400, "endpoints.api_version_mismatch")
    answer = await gateway.raw(f"GET {PATH} HTTP/1.1\r\n{HANDSHAKE}\r\n".replace("localhost", "evil.example").encode())
    assert b"endpoints.host_not_allowed" in answer


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        (("Version: 13", "Version: 8"), 426, "endpoints.websocket_version"),
        (("Key: MDEy", "Key: MD"), 400, "endpoints.malformed_request"),
        (("Sec-WebSocket-Key", "X-Key"), 400, "endpoints.malformed_request"),
        (("Host:", "Content-Length: 3\r\nHost:"), 400, "endpoints.malformed_request"),
        (("Host:", f"X: {'x' * 9000}\r\nHost:"), 431, "endpoints.headers_too_large"),
        (("Host:", "X: 1\r\n" * 200 + "Host:"), 431, "endpoints.headers_too_large"),
    ],
)
async def test_an_unsound_handshake_is_refused(
    gateway: Gateway, change: tuple[str, str], status: int, kind: str
) -> None:
    answer = await gateway.raw(f"GET {PATH} HTTP/1.1\r\n{HANDSHAKE.replace(*change)}\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert kind.encode() in answer


async def test_a_request_that_is_no_get_is_answered_as_if_it_had_not_asked(gateway: Gateway) -> None:
    answer = await gateway.raw(f"DELETE /delete/digits HTTP/1.1\r\n{HANDSHAKE}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"deleting digits" in answer


async def test_one_that_asks_for_no_websocket_is_told_so(gateway: Gateway) -> None:
    answer = await gateway.get(PATH)
    assert (answer.status, answer.kind) == (400, "endpoints.websocket_required")


async def test_trouble_in_the_middle_is_the_last_message(gateway: Gateway) -> None:
    async with connect(url(gateway), proxy=None) as client:
        log(gateway, "before")
        assert await client.recv() == "before\n"
        lost: Any = CortexError("system.unavailable", "the log is gone", Category.UNAVAILABLE)
        gateway.asked.lines.put_nowait(lost)
        assert await rest(client) == ("error: the log is gone\n", 1011)


async def test_a_client_that_leaves_ends_the_call(gateway: Gateway) -> None:
    for close in ("handshake", "abort"):
        gateway.asked.stream_over.clear()
        client = await connect(url(gateway), proxy=None)
        log(gateway, "hello")
        await client.recv()
        if close == "handshake":
            await client.close()
        else:
            client.transport.abort()
        async with asyncio.timeout(10):
            await gateway.asked.stream_over.wait()


async def test_what_a_client_says_is_thrown_away_and_nothing_large_is_taken(gateway: Gateway) -> None:
    async with connect(url(gateway), proxy=None) as client:
        for _ in range(100):
            await client.send("x" * 8000)
        log(gateway, "still there")
        assert await client.recv() == "still there\n"
        await client.send("x" * 9000)
        assert (await rest(client))[1] == 1009


async def test_stopping_the_gateway_closes_it(gateway: Gateway) -> None:
    async with connect(url(gateway), proxy=None) as client:
        log(gateway, "hello")
        await client.recv()
        gateway.stop.set()
        assert (await rest(client))[1] == 1012


async def test_a_slow_reader_slows_the_log_down(gateway: Gateway) -> None:
    """What it does not read stays with the scheduler, and in the end in the job's files."""
    lines, size, ahead = 2000, 100_000, 32 * 2**20
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(slow, (gateway.address.host, gateway.address.port))
    reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
    writer.write(f"GET {PATH} HTTP/1.1\r\n{HANDSHAKE}\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    log(gateway, *("x" * size for _ in range(lines)))
    read = 0
    while read < 4 * 2**20:  # one that took all it is given would be at the end by then
        read += len(await reader.read(1024))
    taken = lines - gateway.asked.lines.qsize()
    assert taken * size < read + ahead < lines * size
    writer.close()
    async with asyncio.timeout(10):
        await gateway.asked.stream_over.wait()
