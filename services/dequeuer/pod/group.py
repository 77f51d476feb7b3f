"""The containers of one worker as a whole, however they are run: their common state, and what is told of it."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from cortex.batch.v1.worker_service_pb2 import ContainerState
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.logs import labels
from services.dequeuer.failed_starts import FailedStarts
from services.dequeuer.pod.container import ContainerRunner, Launcher
from services.dequeuer.pod.output import ContainerOutput
from services.dequeuer.ports import ContainerExit, PodListener, PodState

log = logging.getLogger(__name__)

_KILL_SECONDS = 5.0


class ContainerGroup:
    """What pods that run their containers themselves have in common."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._listener: PodListener | None = None
        self._runners: dict[str, ContainerRunner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._failed_starts = FailedStarts()
        self._state = PodState(
            running=False, failed_starts=0, out_of_memory=False, reason="not started", backing_off=False
        )

    @property
    def state(self) -> PodState:
        """How the containers are now."""
        return self._state

    async def _run(self, listener: PodListener, launchers: Iterable[Launcher]) -> None:
        """Run the containers from now on; return when each was started once, well or not."""
        self._listener = listener
        for launcher in launchers:
            self._runners[launcher.name] = ContainerRunner(launcher, self._output(launcher.name), self)
        self._tasks = [
            asyncio.create_task(self._supervise(runner), name=f"container {name}")
            for name, runner in self._runners.items()
        ]
        for runner in self._runners.values():
            await runner.tried.wait()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to every container, SIGKILL after the grace; returns when all are gone."""
        self._stopping = True
        for runner in self._runners.values():
            runner.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
            if late:
                self.kill()
                await asyncio.wait(late, timeout=_KILL_SECONDS)
        for runner in self._runners.values():
            runner.output.close()
        self._update()

    def kill(self) -> None:
        """End every container at once, without waiting."""
        self._stopping = True
        for runner in self._runners.values():
            runner.kill()

    def restart(self, container: str, reason: str) -> None:
        """End a container so that it is started again."""
        self._runners[container].restart(reason, self._spec.local.stop_grace_seconds)

    def hear(self, states: Iterable[ContainerState]) -> None:
        """Nothing: what happens to the containers is known here first."""

    def made_progress(self) -> None:
        """A batch was finished: the restart budget is full again."""
        if self._failed_starts.batch_finished():
            self._update()

    # What the containers tell: see `container.Events`.

    def started(self, name: str) -> None:
        """A container runs."""
        if self._listener is not None:
            self._listener.container_started(name)
        self._update()

    def exited(self, exit: ContainerExit, *, progressed: bool) -> None:  # noqa: A002  # the domain's word
        """A container ended by itself, or could not be started."""
        self._failed_starts.ended(0 if progressed else 1, out_of_memory=exit.out_of_memory)
        if self._listener is not None:
            self._listener.container_exited(exit)
        self._update()

    def finished_batches(self) -> int:
        """Batches finished since the worker's start."""
        return self._failed_starts.batches

    def _update(self) -> None:
        runners = self._runners.values()
        reasons = [f"container `{runner.name}` {runner.reason}" for runner in runners if runner.reason]
        state = PodState(
            running=all(runner.running is not None for runner in runners),
            failed_starts=self._failed_starts.number,
            out_of_memory=self._failed_starts.out_of_memory,
            reason="; ".join(reasons),
            backing_off=any(runner.backing_off for runner in runners),
            cannot_start=any(runner.cannot_start for runner in runners),
        )
        if state != self._state:
            self._state = state
            if self._listener is not None and not self._stopping:
                self._listener.pod_changed(state)

    async def _supervise(self, runner: ContainerRunner) -> None:
        try:
            await runner.supervise()
        except Exception as error:
            log.exception("container `%s` is lost", runner.name, extra=self._labels())
            runner.kill()
            runner.reason = f"is lost: {error}"
            runner.tried.set()
            self._update()

    def _output(self, container: str) -> ContainerOutput:
        path = Path(self._spec.local.log_directory, f"{container}.jsonl")
        return ContainerOutput(path, self._spec.worker, container, self._labels()["labels"])

    def _labels(self) -> dict[str, dict[str, str]]:
        return labels(self._spec.api_name, self._spec.api_id, self._spec.job_id)
