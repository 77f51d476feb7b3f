"""Is the container ready for batches? Asks every probe of every container, each in a task of its own.

    ready = every container's process is up, and every readiness probe holds

The implicit probe of the port is not asked while a batch is in the container: that is proof enough, and a server that
accepts one connection after the other would have its queue filled with questions. A lane that finds the port closed
says so (`suspect`).

A readiness probe begins as failing, a liveness probe as holding, anew whenever its container starts. A liveness probe
that fails has its container started again.
"""

import asyncio
import logging
from collections.abc import Callable

from cortex.batch.v1.worker_spec_pb2 import Container, Probe, WorkerSpec
from services.dequeuer.lane import Spawn
from services.dequeuer.ports import Pod
from services.dequeuer.probes import Tally, ask, pause_s, port_probe

log = logging.getLogger(__name__)

_NOT_ASKED = "no probe has been answered yet"


class _Watch:
    """One probe of one container, asked while the container runs."""

    def __init__(
        self,
        probe: Probe,
        container: Container | None,
        pod: Pod,
        spawn: Spawn,
        on_news: Callable[[], None],
        liveness: bool = False,
        needless: Callable[[], bool] = lambda: False,
    ) -> None:
        self.container = container
        self.reason = _NOT_ASKED
        self._probe = probe
        self._pod = pod
        self._spawn = spawn
        self._on_news = on_news
        self._liveness = liveness
        self._needless = needless
        self._task: asyncio.Task[None] | None = None
        self._since = 0.0
        self.stop()

    @property
    def holds(self) -> bool:
        return self._tally.holds

    def start(self, delay_s: float | None = None) -> None:
        self.stop()
        delay_s = self._probe.initial_delay_seconds if delay_s is None else delay_s
        self._task = self._spawn(self._run(delay_s))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.reason = _NOT_ASKED
        self._tally = Tally(self._liveness, self._probe.success_threshold, self._probe.failure_threshold)

    def is_of_port(self, port: int) -> bool:
        return self._probe.tcp_socket.port == port

    async def _run(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        await asyncio.sleep(delay_s)
        while True:
            if self.holds and self._needless():
                await asyncio.sleep(pause_s(self._probe, None))
                continue
            before = self.reason
            reason = await ask(self._probe, self.container, self._pod)
            turned = self._tally.count(reason == "")
            if turned:
                self._since = loop.time()
            if not self.holds:
                self.reason = reason or self.reason
            if turned or self.reason != before:
                self._on_news()
            eager = not self._liveness and not self.holds
            await asyncio.sleep(pause_s(self._probe, loop.time() - self._since if eager else None))


class Readiness:
    """See the module's text. `on_change` is called whenever `ready` may have changed; `busy` tells that a batch is in
    the container."""

    def __init__(
        self, spec: WorkerSpec, pod: Pod, spawn: Spawn, on_change: Callable[[], None], busy: Callable[[], bool]
    ) -> None:
        self._port = spec.port
        self._pod = pod
        self._on_change = on_change
        self._readiness = [
            _Watch(container.readiness_probe, container, pod, spawn, on_change)
            for container in spec.containers
            if container.HasField("readiness_probe")
        ]
        if (probe := port_probe(spec)) is not None:
            self._readiness.append(_Watch(probe, None, pod, spawn, on_change, needless=busy))
        self._liveness: list[_Watch] = []
        for container in spec.containers:
            if container.HasField("liveness_probe"):
                watch = _Watch(container.liveness_probe, container, pod, spawn, self._on_liveness, liveness=True)
                self._liveness.append(watch)

    @property
    def ready(self) -> bool:
        """Batches may be delivered."""
        return self._pod.state.running and all(watch.holds for watch in self._readiness)

    @property
    def reason(self) -> str:
        """Why it is not ready, for people; empty when it is."""
        if not self._pod.state.running:
            return self._pod.state.reason or "the containers are being started"
        for watch in self._readiness:
            if not watch.holds:
                return f"container {watch.container.name}: {watch.reason}" if watch.container else watch.reason
        return ""

    def container_started(self, name: str) -> None:
        """Ask its probes, and that of the port, which any container may serve."""
        for watch in self._of(name):
            watch.start()

    def container_exited(self, name: str) -> None:
        """Nothing holds any more."""
        for watch in self._of(name):
            watch.stop()
        self._on_change()

    def suspect(self, reason: str) -> None:
        """The port was found closed, whatever the probe said: not ready until the probe finds it open again."""
        for watch in self._readiness:
            if watch.is_of_port(self._port) and watch.holds:
                watch.start(delay_s=0)
                watch.reason = reason
        self._on_change()

    def stop(self) -> None:
        """Ask nothing more."""
        for watch in (*self._readiness, *self._liveness):
            watch.stop()

    def _of(self, name: str) -> list[_Watch]:
        watches = (*self._readiness, *self._liveness)
        return [watch for watch in watches if watch.container is None or watch.container.name == name]

    def _on_liveness(self) -> None:
        for watch in self._liveness:
            if not watch.holds and watch.container is not None:
                name, reason = watch.container.name, f"its liveness probe fails: {watch.reason}"
                log.warning("container %s is started again: %s", name, reason)
                watch.stop()
                self._pod.restart(name, reason)
