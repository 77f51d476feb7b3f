"""A pod whose containers something else runs, and starts again: how they are comes from the scheduler.

Each time it is told the whole state of all containers. How often each has ended says what happened meanwhile, so that
nothing is missed while the work stream is away, nor what happened before this process began. Until it is told anything
the containers are taken to run: only their probes then say more.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cortex.batch.v1.worker_service_pb2 import ContainerState
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.failed_starts import FailedStarts
from services.dequeuer.ports import ContainerExit, PodListener, PodState

log = logging.getLogger(__name__)

NEWS_S = 5.0
"""A container's end goes a long way: whoever runs it, the cluster's API, the scheduler, the work stream."""


@dataclass(slots=True)
class _Container:
    """One container, as it was told last."""

    state: ContainerState
    batches: int = 0
    """Finished batches when it began."""


class ExternalPod:
    """See the module's text."""

    news_s = NEWS_S

    def __init__(self, spec: WorkerSpec) -> None:
        names = [container.name for container in spec.containers]
        self._containers = {name: _Container(ContainerState(name=name, running=True)) for name in names}
        self._listener: PodListener | None = None
        self._failed_starts = FailedStarts()
        self._state = PodState(running=False, failed_starts=0, out_of_memory=False, reason="", backing_off=False)

    @property
    def state(self) -> PodState:
        """How the containers are, as far as is known."""
        return self._state

    async def start(self, listener: PodListener) -> None:
        """Begin to probe."""
        self._listener = listener
        for name, container in self._containers.items():
            if container.state.running:
                listener.container_started(name)
        self._update()

    def hear(self, states: Iterable[ContainerState]) -> None:
        """How the containers are."""
        for state in states:
            if (container := self._containers.get(state.name)) is not None:
                self._take(container, state)
        self._update()

    def _take(self, container: _Container, now: ContainerState) -> None:
        before, container.state = container.state, now
        ends = max(0, now.ends - before.ends)
        if ends:
            progressed = self._failed_starts.batches > container.batches
            self._failed_starts.ended(ends - progressed, out_of_memory=now.out_of_memory)
            container.batches = self._failed_starts.batches
        if self._listener is None:
            return
        if ends:
            self._listener.container_exited(_exit(now))
        if now.running and (ends or not before.running):
            self._listener.container_started(now.name)

    def _update(self) -> None:
        states = [container.state for container in self._containers.values()]
        down = [state for state in states if not state.running]
        state = PodState(
            running=not down,
            failed_starts=self._failed_starts.number,
            out_of_memory=self._failed_starts.out_of_memory,
            reason="; ".join(f"container `{state.name}` {state.reason or 'does not run'}" for state in down),
            backing_off=any(state.backing_off for state in down),
        )
        if state != self._state and self._listener is not None:
            self._state = state
            self._listener.pod_changed(state)

    def made_progress(self) -> None:
        """A batch was finished: the restart budget is full again."""
        if self._failed_starts.batch_finished():
            self._update()

    async def stop(self, grace_seconds: float) -> None:
        """Nothing: whoever runs the containers ends them, after this process."""

    def kill(self) -> None:
        """Nothing, likewise."""

    def restart(self, container: str, reason: str) -> None:
        """Only say so: whoever runs the containers asks their liveness probes too."""
        log.warning("container %s should be started again: %s", container, reason)

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Raises OSError: there is no way into a container that something else runs."""
        raise OSError(f"commands cannot be run in container {container} from here")


def _exit(state: ContainerState) -> ContainerExit:
    code = state.exit_code if state.HasField("exit_code") else None
    number = state.signal if state.HasField("signal") else None
    return ContainerExit(state.name, code, number, state.out_of_memory, state.reason or "has ended")
