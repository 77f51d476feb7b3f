"""The gateway as a process: how it listens, logs and ends."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from services.common.settings import Environment, SettingsError
from services.gateway import server, settings
from tests.integration.gateway_harness import SchedulerServer


class Process:
    """A gateway in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""

    async def line(self) -> dict[str, Any]:
        """The next line of its log."""
        assert self.process.stderr is not None
        found: dict[str, Any] = json.loads(await self.process.stderr.readline())
        return found

    async def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return await asyncio.to_thread(urllib3.request, "GET", self.url + path, retries=False, timeout=20)


@asynccontextmanager
async def started(
    environment: Mapping[str, str], fds: tuple[int, ...] = (), *, serving: bool = True
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.gateway"),
        env={**os.environ, "CORTEX_HTTP_ADDRESS": "127.0.0.1:0", **environment},
        stderr=asyncio.subprocess.PIPE,
        pass_fds=fds,
    )
    gateway = Process(process)
    try:
        if serving:
            first = await gateway.line()
            assert first["message"].startswith("serving http://"), first
            gateway.url = first["message"].split()[1]
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_tells_its_address_and_ends_cleanly(tmp_path: Path) -> None:
    unix = tmp_path / "http.sock"
    nobody = f"unix:{tmp_path / 'scheduler.sock'}"
    async with started({"CORTEX_SCHEDULER_ADDRESS": nobody, "CORTEX_HTTP_SOCKET": str(unix)}) as gateway:
        assert (await gateway.get("/healthz")).status == 200
        assert unix.is_socket()
        not_ready = await gateway.get("/readyz")
        assert (not_ready.status, not_ready.json()["kind"]) == (503, "system.unavailable")
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0
        assert not unix.exists()


async def test_every_request_is_a_line_of_its_log(tmp_path: Path) -> None:
    scheduler = SchedulerServer(f"unix:{tmp_path / 'scheduler.sock'}")
    await scheduler.start()
    async with started({"CORTEX_SCHEDULER_ADDRESS": scheduler.target}) as gateway:
        await gateway.get("/healthz")
        await gateway.get("/metrics")
        answer = await gateway.get("/batch/digits")
        line = await gateway.line()
        assert line["service"] == "cortex-gateway"
        assert line["level"] == "info"
        assert line["message"].startswith("GET /batch/digits 400 ")
        assert line["message"].endswith(
            f"request_id={answer.headers['x-request-id']} trace_id={answer.headers['x-trace-id']}"
        )
    await scheduler.kill()


async def test_an_inherited_socket_outlives_a_gateway(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = {
            "CORTEX_SCHEDULER_ADDRESS": f"unix:{tmp_path / 'scheduler.sock'}",
            "CORTEX_HTTP_FD": str(listener.fileno()),
            "CORTEX_PUBLIC_URL": "http://localhost:1/",
            "CORTEX_HTTP_SOCKET": str(tmp_path / "http.sock"),
        }
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with started(environment, (listener.fileno(),)) as first:
            assert first.url == url
            assert (await first.get("/openapi.json")).json()["servers"] == [{"url": "http://localhost:1"}]
            first.process.kill()
            await first.process.wait()
        asked_between = asyncio.create_task(Process(first.process).get(f"{url}/healthz"))
        async with started(environment, (listener.fileno(),)) as second:
            assert second.url == url
            assert (await asked_between).status == 200
            assert (tmp_path / "http.sock").is_socket()


async def test_it_ends_with_the_system(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    environment = {"CORTEX_SCHEDULER_ADDRESS": f"unix:{tmp_path}/s", "CORTEX_LIFELINE_FD": str(read_end)}
    async with started(environment, (read_end,)) as gateway:
        os.close(read_end)
        os.close(write_end)
        async with asyncio.timeout(10):
            assert await gateway.process.wait() == 0


async def test_what_it_cannot_do_is_one_sentence(tmp_path: Path) -> None:
    environment = {"CORTEX_SCHEDULER_ADDRESS": f"unix:{tmp_path}/s", "CORTEX_HTTP_FD": "77"}
    async with started(environment, serving=False) as gateway:
        assert gateway.process.stderr is not None
        said = (await gateway.process.stderr.read()).decode()
        assert await gateway.process.wait() == 1
    assert said == "error: CORTEX_HTTP_FD=77 is not an open socket: Bad file descriptor\n"


def refusal(variables: Mapping[str, str]) -> str:
    environment = Environment({"CORTEX_SCHEDULER_ADDRESS": "unix:s", "CORTEX_HTTP_ADDRESS": "127.0.0.1:0", **variables})
    with pytest.raises(SettingsError) as refused, server.listening(settings.read(environment)):
        pass
    return refused.value.message


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal({"CORTEX_HTTP_ADDRESS": f"127.0.0.1:{port}"})
        assert said == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    path = str(tmp_path / "http.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        assert refusal({"CORTEX_HTTP_SOCKET": path}) == f"another process listens on CORTEX_HTTP_SOCKET={path}"
    assert "cannot listen on CORTEX_HTTP_SOCKET=" in refusal({"CORTEX_HTTP_SOCKET": str(tmp_path / ("x" * 120))})


def test_an_inherited_socket_is_not_served_to_strangers_either() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        inherited = os.dup(listener.fileno())
        assert "CORTEX_INSECURE=true" in refusal({"CORTEX_HTTP_FD": str(inherited)})
