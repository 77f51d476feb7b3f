"""A pod whose containers something else runs, and starts again: the dequeuer only probes their ports."""

import logging
from collections.abc import Sequence

from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.ports import PodListener, PodState

log = logging.getLogger(__name__)


class ExternalPod:
    """Always there. That a container died shows in its port alone."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._names = [container.name for container in spec.containers]
        self._state = PodState(running=False, failed_starts=0, out_of_memory=False, reason="", backing_off=False)

    @property
    def state(self) -> PodState:
        """Running from `start` on."""
        return self._state

    async def start(self, listener: PodListener) -> None:
        """Begin to probe."""
        self._state = PodState(running=True, failed_starts=0, out_of_memory=False, reason="", backing_off=False)
        for name in self._names:
            listener.container_started(name)
        listener.pod_changed(self._state)

    async def stop(self, grace_seconds: float) -> None:
        """Nothing: whoever runs the containers ends them."""

    def kill(self) -> None:
        """Nothing, likewise."""

    def restart(self, container: str, reason: str) -> None:
        """Only say so: whoever runs the containers asks their liveness probes too."""
        log.warning("container %s should be started again: %s", container, reason)

    def made_progress(self) -> None:
        """Nothing: starts are counted elsewhere."""

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Raises OSError: there is no way into a container that something else runs."""
        raise OSError(f"commands cannot be run in container {container} from here")
