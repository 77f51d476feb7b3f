"""Run by test_uplink.py in a network that is nobody's: its machine has loopback, `HOST` and no resolver but ours."""

import asyncio
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from services.scheduler.domain.model.worker import WorkerRecord
from tests.integration.local_worker_kit import WAIT_SECONDS, Workers, api, processes_of

HOST = "198.51.100.1"
TRY = r"""
import socket, sys, time
for name in sys.argv[1:]:
    host, port = name.split(":")
    try:
        with socket.create_connection((host, int(port)), 3) as asked:
            print(name, "says", asked.makefile().readline().strip(), flush=True)
    except OSError:
        print(name, "is out of reach", flush=True)
time.sleep(1000)
"""


@asynccontextmanager
async def server(host: str, word: str) -> AsyncIterator[int]:
    """Says one word to whoever connects; its port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word.encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, host, 0) as listening:
        yield listening.sockets[0].getsockname()[1]


class Names(asyncio.DatagramProtocol):
    """A resolver to which every name is `HOST`, and none has an IPv6 address."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # as it is given
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        ipv4 = question[-4:] == b"\0\1\0\1"
        counts = struct.pack("!HHHHH", 0x8180, 1, ipv4, 0, 0)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(HOST) if ipv4 else b""
        self.transport.sendto(data[:2] + counts + question + answer, address)


def uplinks_of(worker: WorkerRecord) -> set[int]:
    return {pid for pid in processes_of(worker) if psutil.Process(pid).name() == "slirp4netns"}


async def test_a_worker_in_a_namespace_reaches_out_but_not_the_machines_loopback(tmp_path: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="cortex-"))  # a unix socket's path is short

    async def gateway(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"gateway\n")
        await writer.drain()
        writer.close()

    try:
        names, _ = await asyncio.get_running_loop().create_datagram_endpoint(Names, ("127.0.0.1", 53))
        relayed = await asyncio.start_unix_server(gateway, directory / "http.sock")
        async with server(HOST, "outside") as outside, server("127.0.0.1", "private") as private, relayed:
            tried = [
                f"{HOST}:{outside}",
                f"name.test:{outside}",
                "127.0.0.1:8888",
                *(f"{host}:{private}" for host in ("127.0.0.1", "198.19.73.2", "198.19.73.3")),
            ]
            asking = {"name": "api", "command": [sys.executable, "-S", "-c", TRY, *tried]}
            async with Workers(tmp_path, http_socket=str(directory / "http.sock")) as workers:
                worker = await workers.start(api(asking, port=private))
                assert await workers.says("api", tried[0]) == f"{tried[0]} says outside"
                assert await workers.says("api", tried[1]) == f"{tried[1]} says outside"
                assert await workers.says("api", tried[2]) == f"{tried[2]} says gateway"
                for loopback in tried[3:]:
                    assert await workers.says("api", loopback) == f"{loopback} is out of reach"
                told = (tmp_path / "logs" / "hello" / worker.job_id / "0" / "dequeuer.jsonl").read_text()
                assert "reach the network, but" in told
        names.close()
    finally:
        shutil.rmtree(directory)


async def test_the_uplink_ends_with_its_dequeuer_even_without_a_scheduler(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        version = api({"name": "api", "command": ["sh", "-c", "echo up; exec sleep 1000"]}, port=taken.getsockname()[1])
        async with Workers(tmp_path) as workers:
            worker = await workers.start(version)
            await workers.says("api", "up")
            (uplink,) = uplinks_of(worker)
            assert worker.pid is not None
            end = os.pidfd_open(uplink)
            try:
                waiting = select.poll()
                waiting.register(end, select.POLLIN)
                os.kill(worker.pid, signal.SIGKILL)
                # The event loop stands still, so the driver ends nothing: the kernel's closing of the socket has to do.
                assert waiting.poll(WAIT_SECONDS * 1000)
            finally:
                os.close(end)
            await workers.exit_of(worker)
            assert processes_of(worker) == set()
