"""Replicas of the scheduler: real processes on one ledger that a Lease elects one of."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2

from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from services.scheduler.api.server import SERVICES
from tests.ports import free_ports

if TYPE_CHECKING:
    from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceAsyncStub  # exists in the stubs alone

SECONDS = 30.0
LEASE_SECONDS = 3
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Replica:
    """One scheduler."""

    name: str
    process: asyncio.subprocess.Process
    log: list[str]
    channel: grpc.aio.Channel
    _told: asyncio.Condition
    _reading: "asyncio.Task[None]"

    @classmethod
    async def start(cls, name: str, environ: Mapping[str, str], port: int) -> "Replica":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "services.scheduler",
            env={**environ, "CORTEX_POD_NAME": name, "CORTEX_GRPC_ADDRESS": f"127.0.0.1:{port}"},
            stderr=asyncio.subprocess.PIPE,
        )
        log: list[str] = []
        told = asyncio.Condition()
        reading = asyncio.create_task(_read(process, log, told))
        await _until_told(log, told, re.compile("serving health on port"))
        return cls(name, process, log, grpc.aio.insecure_channel(f"127.0.0.1:{port}"), told, reading)

    @property
    def batch(self) -> "BatchServiceAsyncStub":
        return BatchServiceStub(self.channel)

    async def told(self, text: str) -> str:
        """The first line of its log with this text, as soon as there is one."""
        return await _until_told(self.log, self._told, re.compile(re.escape(text)))

    async def health(self, service: str) -> int:
        """What it says of a service at once."""
        async for status in self._health(service):
            return status
        raise AssertionError("".join(self.log))

    async def leads(self) -> None:
        """Wait until it serves."""
        async with asyncio.timeout(SECONDS):
            async for status in self._health(SERVICES[0]):
                if status == SERVING:
                    return
        raise AssertionError("".join(self.log))

    async def _health(self, service: str) -> AsyncIterator[int]:
        watch: grpc.aio.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
            self.channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
        )
        async for answer in watch(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True):
            yield int(answer.status)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(SECONDS):
            await self._reading
            return await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        await self._reading
        await self.process.wait()
        await self.channel.close()


async def _read(process: asyncio.subprocess.Process, log: list[str], told: asyncio.Condition) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        async with told:
            log.append(line.decode())
            told.notify_all()


async def _until_told(log: list[str], told: asyncio.Condition, pattern: re.Pattern[str]) -> str:
    def found() -> str:
        return next((line for line in log if pattern.search(line)), "")

    try:
        async with asyncio.timeout(SECONDS), told:
            return await told.wait_for(found)
    except TimeoutError:
        raise AssertionError(f"not told: {pattern.pattern}\n" + "".join(log)) from None


@asynccontextmanager
async def replicas(
    directory: Path, kubeconfig: Path, ports: Sequence[int] = (), **more: str
) -> "AsyncIterator[tuple[Replica, Replica]]":
    """Two: the first leads, the second stands by."""
    one, other = ports or free_ports(2)
    environ = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "CORTEX_DATA_DIR": str(directory / "data"),
        "CORTEX_LEASE": "scheduler",
        "CORTEX_LEASE_SECONDS": str(LEASE_SECONDS),
        "CORTEX_RECONNECT_GRACE": "8",
        **more,
    }
    first = await Replica.start("first", environ, one)
    try:
        await first.leads()
        second = await Replica.start("second", environ, other)
        try:
            await second.told("standing by: first holds the lease")
            yield first, second
        finally:
            await second.close()
    finally:
        await first.close()
