"""A pod's own network: a namespace with a loopback interface, and the cluster's services in it.

Sockets belong to the namespace in which they were made. So the kubelet needs no other process to carry connections: the
pod's first process makes listening sockets for it, at a loopback address for each backend of a service, and the kubelet
accepts from them and connects on this machine. Names are in the pod's `/etc/hosts`.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

_PAUSE = Path(__file__).with_name("pause.py")
_CHUNK_BYTES = 64 * 1024
_START_SECONDS = 20
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Service:
    """A name that pods reach, and what answers on this machine: for each port the loopback ports of its backends."""

    name: str
    ports: dict[int, tuple[int, ...]]


class Network:
    """One pod's."""

    def __init__(self, address: str, hostname: str) -> None:
        self.address = address
        self._hostname = hostname
        self._names: list[tuple[str, str]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._servers: list[asyncio.Server] = []

    async def start(self, services: list[Service]) -> None:
        """Raises OSError where this machine makes no network namespaces."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unshare = [_tool("unshare"), "--net"] if os.geteuid() == 0 else [_tool("unshare"), "-U", "-r", "--net"]
        command = [*unshare, sys.executable, "-I", "-S", str(_PAUSE), str(theirs.fileno()), self.address]
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        ours.settimeout(_START_SECONDS)
        self._channel = ours
        if await asyncio.to_thread(ours.recv, 4096) != b"{}":
            raise OSError("this machine makes no network namespaces")
        for service in services:
            await self.add(service)

    async def add(self, service: Service) -> None:
        """Let the pod reach it."""
        for number in range(max((len(backends) for backends in service.ports.values()), default=0)):
            local = service.name == "localhost"
            address = "127.0.0.1" if local else f"127.77.{len(self._names) // 250}.{len(self._names) % 250 + 1}"
            if not local:
                self._names.append((address, service.name))
            for port, backends in service.ports.items():
                if number < len(backends):
                    await self._carry(address, port, backends[number])

    async def connect(self, port: int) -> Connection:
        """A connection to a port of the pod's. Raises OSError."""
        made = await self._ask({"connect": True})
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except OSError:
            made.close()
            raise
        return await asyncio.open_connection(sock=made)

    def hosts(self) -> str:
        """The pod's `/etc/hosts`."""
        lines = ["127.0.0.1 localhost", f"{self.address} {self._hostname}"]
        for address, name in self._names:
            short = name.partition(".")[0]
            lines.append(f"{address} {name}" + (f" {short}" if short != name else ""))
        return "\n".join(lines) + "\n"

    def entering(self) -> list[str]:
        """What comes before a command that is to run in here."""
        if self._process is None:
            raise RuntimeError("the pod's network is not there yet")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return [_tool("nsenter"), f"--target={self._process.pid}", *user, "--net", "--"]

    async def stop(self) -> None:
        """The namespace goes with its last process."""
        for server in self._servers:
            server.close()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _carry(self, address: str, port: int, backend: int) -> None:
        made = await self._ask({"listen": address, "port": port})
        connected = carrying(lambda: asyncio.open_connection("127.0.0.1", backend))
        self._servers.append(await asyncio.start_server(connected, sock=made))

    async def _ask(self, request: dict[str, object]) -> socket.socket:
        channel = self._channel
        if channel is None:
            raise OSError("the pod's network is not there")

        def asked() -> socket.socket:
            channel.send(json.dumps(request).encode())
            answer, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
            if not descriptors:
                raise OSError(json.loads(answer or b'{"error": "the pod is gone"}')["error"])
            return socket.socket(fileno=descriptors[0])

        async with self._lock:
            return await asyncio.to_thread(asked)


def carrying(
    connect: Callable[[], Awaitable[Connection]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """What a server does that passes each of its connections on to one that this makes, or breaks it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await connect()
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        writer.close()
        far_writer.close()

    return connected


@contextlib.asynccontextmanager
async def served(connect: Callable[[], Awaitable[Connection]]) -> AsyncIterator[int]:
    """A port of this machine that leads to where `connect` leads."""
    server = await asyncio.start_server(carrying(connect), "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One way; an end that breaks breaks the other one too."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise OSError(f"{name} is not installed")
    return found
