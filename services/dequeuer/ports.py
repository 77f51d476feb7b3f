"""What the worker needs from the containers beside it, wherever they run.

A `Pod` runs the user's containers and starts a crashed one again by itself, with backoff. It tells a `PodListener` what
happens; all calls come on the event loop. `services.dequeuer.pod.create(spec)` makes the pod that a WorkerSpec asks
for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cortex.batch.v1.worker_service_pb2 import ContainerState


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """A container's process ended without being asked to by `Pod.stop`."""

    container: str
    code: int | None
    """The exit code; None when a signal ended it."""
    signal: int | None
    """The signal's number; None when it exited by itself."""
    out_of_memory: bool
    """There is evidence that memory ran out: never concluded from a bare SIGKILL."""
    reason: str
    """For people, such as `exited with code 3 after 0.4 s; last output: ...`."""


@dataclass(frozen=True, slots=True)
class PodState:
    """How the containers are, as a whole."""

    running: bool
    """Every container's process is up."""
    failed_starts: int
    """Starts in a row that ended without a finished batch, the running one not counted."""
    out_of_memory: bool
    """There is evidence that the last of them ran out of memory."""
    reason: str
    """Why it is not running, for people; empty when it is."""
    backing_off: bool
    """A container ended and waits to be started again."""
    cannot_start: bool = False
    """A container was never started and cannot be, as `reason` says: trying again does not help."""


class PodListener(Protocol):
    """Is told what happens to the containers."""

    def container_started(self, name: str) -> None:
        """The container's process is up (which says nothing of its port)."""

    def container_exited(self, exit: ContainerExit) -> None:  # noqa: A002  # the domain's word
        """The container's process is gone, as soon as that is known."""

    def pod_changed(self, state: PodState) -> None:
        """The state is a different one now. Comes after `container_started` and `container_exited`."""


class Pod(Protocol):
    """The containers of one worker."""

    news_s: float
    """That a container ended may be known so late after its connections broke."""

    @property
    def state(self) -> PodState:
        """How they are now."""

    async def start(self, listener: PodListener) -> None:
        """Start every container; return when each was started once.

        Raises `CortexError` with a sentence for people when the machine cannot run them at all.
        """

    async def stop(self, grace_seconds: float) -> None:
        """End every container: SIGTERM, and SIGKILL after the grace. Returns when all are gone; calls nobody back."""

    def kill(self) -> None:
        """End every container at once, without waiting."""

    def restart(self, container: str, reason: str) -> None:
        """End a container so that it is started again; counts as a failed start. `reason` is for people."""

    def hear(self, states: Iterable[ContainerState]) -> None:
        """How all containers are, as the scheduler tells it; only where something else runs them."""

    def made_progress(self) -> None:
        """A batch was finished: the restart budget is full again."""

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Run a command inside a container and return its exit code.

        Raises TimeoutError when it takes longer than `timeout` seconds (and ends it), OSError when it cannot be run.
        """
