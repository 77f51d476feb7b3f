"""Probes: the pure counting of answers, and the ways to ask. Rules as in Kubernetes ("Configure Liveness, Readiness and
Startup Probes"), with its licence to ask a container that is not ready more often, so that it is ready sooner.
"""

import asyncio

from cortex.batch.v1.worker_spec_pb2 import Container, Probe, TcpSocket, WorkerSpec
from services.dequeuer.http_client import HttpConnection, exchange, unreachable
from services.dequeuer.ports import Pod
from services.dequeuer.requests import get_request

EAGER_MIN_S = 0.02
"""Shortest pause between questions to a port that has yet to open: they cost nothing, and nobody sees them."""

EAGER_MIN_ASKED_S = 0.1
"""Shortest pause where the container must answer each question."""

EAGER_MAX_S = 0.5
"""Longest pause between questions to a container that has yet to become ready."""

_EAGER_SHARE = 0.05


class Tally:
    """Answers in a row, and what they make of the probe."""

    def __init__(self, holds: bool, success_threshold: int, failure_threshold: int) -> None:
        self.holds = holds
        self._successes_needed = max(1, success_threshold)
        self._failures_needed = max(1, failure_threshold)
        self._against = 0

    def count(self, success: bool) -> bool:
        """Count an answer; True when it turned the probe over."""
        if success == self.holds:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._successes_needed if success else self._failures_needed):
            return False
        self.holds = success
        self._against = 0
        return True


def pause_s(probe: Probe, waiting_s: float | None) -> float:
    """Seconds until the next question.

    `waiting_s`: for how long a readiness probe has been failing; None for everything else. The pause then is a share of
    that time, so that a container is found ready at most that share later than it is.
    """
    period = probe.period_seconds or 10.0
    if waiting_s is None:
        return period
    shortest = EAGER_MIN_S if probe.HasField("tcp_socket") else EAGER_MIN_ASKED_S
    return min(period, max(shortest, min(EAGER_MAX_S, waiting_s * _EAGER_SHARE)))


def port_probe(spec: WorkerSpec) -> Probe | None:
    """The implicit probe of the port that takes batches; None where a container has one of its own."""
    for container in spec.containers:
        probe = container.readiness_probe
        if container.HasField("readiness_probe") and probe.tcp_socket.port == spec.port:
            return None
    return Probe(
        tcp_socket=TcpSocket(port=spec.port),
        timeout_seconds=1,
        period_seconds=1,
        success_threshold=1,
        failure_threshold=1,
    )


async def ask(probe: Probe, container: Container | None, pod: Pod) -> str:
    """Ask once. Empty when the probe holds, else why it does not, for people."""
    timeout = probe.timeout_seconds or 1.0
    port = probe.http_get.port or probe.tcp_socket.port
    try:
        match probe.WhichOneof("handler"):
            case "http_get":
                return await _ask_http(probe.http_get.port, probe.http_get.path, timeout)
            case "tcp_socket":
                return await _ask_tcp(probe.tcp_socket.port, timeout)
            case "exec" if container is not None:
                code = await pod.exec(container.name, list(probe.exec.command), timeout)
                return "" if code == 0 else f"its command exited with code {code}"
            case handler:
                raise ValueError(f"a probe without a known handler: {handler}")
    except TimeoutError:
        return f"no answer in {timeout:g} s"
    except OSError as error:
        return unreachable(port, error) if port else f"its command cannot be run: {error}"


async def _ask_tcp(port: int, timeout: float) -> str:
    connection = await HttpConnection.open(port, timeout)
    connection.abort()
    return ""


async def _ask_http(port: int, path: str, timeout: float) -> str:
    async with asyncio.timeout(timeout):
        connection = await HttpConnection.open(port, timeout)
        reply = await exchange(connection, get_request(path, port))
    if reply.broken is not None:
        return reply.reason
    return "" if 200 <= reply.status < 400 else f"GET {path} on port {port} answered {reply.status}"
