"""Where a worker listens.

A worker whose configuration mentions CORTEX_PORT follows it and is given a free port. Any other listens on `pod.port`,
and on the other ports that its probes ask, as they are. Where one of those is taken, by another worker or by any
program of this machine, the worker gets a network namespace, in which every port is free.

The kernel closes a killed container's sockets a moment after its worker's end was seen. So a port that one of ours has
just let go is waited for, rather than taken for another program's.
"""

import asyncio
import errno
import random
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_FIRST, _LAST = 20_000, 29_999
"""Below the range from which systems take the ports of outgoing connections, which could take ours before the
container does."""

_TRIES = 200
_SETTLE_SECONDS = 1.0
_SETTLE_STEP_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class PortChoice:
    """Where one worker listens."""

    port: int
    """CORTEX_PORT: where it takes batches."""
    fixed: frozenset[int]
    """Ports that it uses as they are configured."""
    namespace: bool
    """It needs a network namespace of its own."""

    @property
    def on_machine(self) -> frozenset[int]:
        """The machine's ports that this worker uses."""
        return frozenset() if self.namespace else self.fixed | {self.port}


@dataclass(slots=True)
class Ports:
    """Which worker uses which of the machine's ports: they may not have bound them yet."""

    _taken: dict[str, frozenset[int]] = field(default_factory=dict)
    _released: dict[int, float] = field(default_factory=dict)
    """When ours let go of a port, on the monotonic clock."""

    async def choose(self, worker_id: str, pod_port: int, probe_ports: Iterable[int], *, follows: bool) -> PortChoice:
        """Choose for a worker and remember it. `follows`: it mentions CORTEX_PORT."""
        fixed = frozenset(probe_ports) - {pod_port} if follows else frozenset(probe_ports) | {pod_port}
        await self._settle(fixed)
        namespace = any(self._is_taken(port) for port in fixed)
        port = self._free(fixed) if follows and not namespace else pod_port
        choice = PortChoice(port, fixed, namespace)
        self.remember(worker_id, choice.on_machine)
        return choice

    def remember(self, worker_id: str, ports: frozenset[int]) -> None:
        """A worker uses these."""
        self._taken[worker_id] = ports

    def release(self, worker_id: str) -> None:
        """A worker is gone."""
        now = time.monotonic()
        self._released = {port: at for port, at in self._released.items() if now - at < _SETTLE_SECONDS}
        self._released |= dict.fromkeys(self._taken.pop(worker_id, ()), now)

    async def _settle(self, ports: frozenset[int]) -> None:
        in_use = frozenset[int]().union(*self._taken.values())
        for port in ports - in_use:
            deadline = self._released.get(port, 0.0) + _SETTLE_SECONDS
            while not _can_listen(port) and time.monotonic() < deadline:  # noqa: ASYNC110  # the kernel tells nobody
                await asyncio.sleep(_SETTLE_STEP_SECONDS)

    def _is_taken(self, port: int) -> bool:
        return any(port in ports for ports in self._taken.values()) or not _can_listen(port)

    def _free(self, fixed: frozenset[int]) -> int:
        start = random.randrange(_FIRST, _LAST)  # noqa: S311  # a place to begin, not a secret
        for offset in range(_TRIES):
            port = _FIRST + (start - _FIRST + offset) % (_LAST - _FIRST + 1)
            if port not in fixed and not self._is_taken(port):
                return port
        raise OSError(errno.EADDRINUSE, f"no free port among {_TRIES} from {start} on")


def _can_listen(port: int) -> bool:
    """Whether a server could listen on all addresses. A port that only root may use counts as free: it is not taken."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  # bound, not served
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True
