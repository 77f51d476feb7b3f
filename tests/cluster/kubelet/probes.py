"""Probes of a container: startup first, then readiness and liveness."""

import asyncio
import contextlib
import os
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.common.kubernetes import Object
from tests.cluster.kubelet.container import Container
from tests.cluster.kubelet.network import Network, served


async def probe(container: Container, network: Network, environment: dict[str, str], kill: "asyncio.Event") -> None:
    """As long as the container lives; `kill` is set when a probe says that it has to be restarted."""
    if startup := container.spec.get("startupProbe"):
        if not await _until_changed(container, startup, network, environment, good=False):
            kill.set()
            return
        container.probed(started=True)
    async with asyncio.TaskGroup() as group:
        if readiness := container.spec.get("readinessProbe"):
            group.create_task(_readiness(container, readiness, network, environment))
        if liveness := container.spec.get("livenessProbe"):
            group.create_task(_liveness(container, liveness, network, environment, kill))


async def _readiness(container: Container, given: Object, network: Network, environment: dict[str, str]) -> None:
    good = False
    while True:
        good = await _until_changed(container, given, network, environment, good)
        container.probed(ready=good)


async def _liveness(
    container: Container, given: Object, network: Network, environment: dict[str, str], kill: "asyncio.Event"
) -> None:
    while await _until_changed(container, given, network, environment, good=True, both=False):
        pass
    kill.set()


async def _until_changed(
    container: Container, given: Object, network: Network, environment: dict[str, str], good: bool, both: bool = True
) -> bool:
    """Probes until enough results in a row say the opposite of `good`; a startup probe ends when it fails for good."""
    await asyncio.sleep(given.get("initialDelaySeconds", 0) if not good else 0)
    successes = failures = 0
    while True:
        result = await _once(container, given, network, environment)
        successes, failures = (successes + 1, 0) if result else (0, failures + 1)
        if not good and successes >= given.get("successThreshold", 1):
            return True
        startup = given is container.spec.get("startupProbe")
        if (good or startup) and failures >= given.get("failureThreshold", 3):
            return False
        await asyncio.sleep(given.get("periodSeconds", 10))


async def _once(container: Container, given: Object, network: Network, environment: dict[str, str]) -> bool:
    try:
        async with asyncio.timeout(given.get("timeoutSeconds", 1)):
            if action := given.get("exec"):
                return await _execute(container, action["command"], environment)
            if action := given.get("httpGet"):
                return await _http(container, action, network)
            if action := given.get("grpc"):
                return await _grpc(action, network)
            if action := given.get("tcpSocket"):
                _, writer = await network.connect(_port(container, action["port"]))
                writer.close()
                return True
    except (OSError, TimeoutError, ValueError, grpc.aio.AioRpcError):
        return False
    return False


async def _execute(container: Container, command: list[str], environment: dict[str, str]) -> bool:
    process = await asyncio.create_subprocess_exec(
        *container.entering(),
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        return await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _http(container: Container, action: Object, network: Network) -> bool:
    reader, writer = await network.connect(_port(container, action["port"]))
    try:
        lines = [
            f"GET {action.get('path') or '/'} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            "User-Agent: kube-probe",
        ]
        lines += [f"{one['name']}: {one['value']}" for one in action.get("httpHeaders") or []]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return 200 <= int((await reader.readline()).split()[1]) < 400
    except IndexError:
        return False
    finally:
        writer.close()


async def _grpc(action: Object, network: Network) -> bool:
    async with (
        served(lambda: network.connect(int(action["port"]))) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub: Any = HealthStub(channel)  # its types leave Check out
        answer = await stub.Check(HealthCheckRequest(service=action.get("service") or ""))
        return bool(answer.status == HealthCheckResponse.SERVING)


def _port(container: Container, port: int | str) -> int:
    if isinstance(port, int):
        return port
    return next((int(one["containerPort"]) for one in container.spec.get("ports") or [] if one.get("name") == port), 0)
