"""The containers of one worker as processes of this machine.

`LocalPod` puts the pieces together and keeps the state of the whole: `environment` and `expansion` say what to run,
`sandbox` where, `memory` under which limit; `output` keeps what it writes; `container` runs one of them, again and
again.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cortex.batch.v1.worker_service_pb2 import ContainerState
from cortex.batch.v1.worker_spec_pb2 import Container, WorkerSpec
from services.common.errors import Category, CortexError
from services.common.logs import labels
from services.dequeuer.pod import cgroups, environment, network, sandbox
from services.dequeuer.pod.child import Child
from services.dequeuer.pod.container import ContainerRunner, Plan
from services.dequeuer.pod.expansion import expand
from services.dequeuer.pod.memory import MemoryGuards
from services.dequeuer.pod.output import ContainerOutput
from services.dequeuer.pod.tree import kill_descendants
from services.dequeuer.pod.uplink import Uplink
from services.dequeuer.ports import ContainerExit, PodListener, PodState

log = logging.getLogger(__name__)

_PROBE_END_SECONDS = 0.2
_KILL_SECONDS = 5.0


class LocalPod:
    """A `Pod` of processes. `environ` is the shell's environment as the dequeuer inherited it."""

    news_s = 1.0

    def __init__(self, spec: WorkerSpec, environ: Mapping[str, str]) -> None:
        self._spec = spec
        self._environ = environ
        self._directory = Path(spec.local.directory)
        self._grace_seconds = spec.local.stop_grace_seconds
        self._listener: PodListener | None = None
        self._network: network.Network | None = None
        self._runners: dict[str, ContainerRunner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._batches = 0
        self._failed_starts = 0
        self._out_of_memory = False
        self._may_enter: bool | None = None
        self._state = PodState(
            running=False, failed_starts=0, out_of_memory=False, reason="not started", backing_off=False
        )

    @property
    def state(self) -> PodState:
        """How the containers are now."""
        return self._state

    async def start(self, listener: PodListener) -> None:
        """Start every container; return when each was started once, well or not.

        Raises `CortexError` when the worker's directories or its network namespace cannot be used.
        """
        self._listener = listener
        self._network = await network.prepare(self._spec.local)
        if self._spec.local.network_namespace:
            self._tell_of_namespace(self._network.uplink)
        try:
            await asyncio.to_thread(os.makedirs, self._spec.local.log_directory, exist_ok=True)
        except OSError as error:
            raise CortexError(
                "worker.cannot_start", f"the containers' output cannot be kept: {error}", Category.INTERNAL
            ) from error
        box = await self._find_sandbox(self._network.uplink)
        limited = any(container.HasField("memory_bytes") for container in self._spec.containers)
        guards = MemoryGuards(await asyncio.to_thread(cgroups.find) if limited else None)
        for container in self._spec.containers:
            runner = ContainerRunner(self._plan(container, box, guards), self)
            self._runners[container.name] = runner
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
            runner.plan.output.close()
        if self._network is not None:
            self._network.close()
        self._update()

    def kill(self) -> None:
        """End every container at once, without waiting."""
        self._stopping = True
        for runner in self._runners.values():
            runner.kill()

    def restart(self, container: str, reason: str) -> None:
        """End a container so that it is started again."""
        self._runners[container].restart(reason, self._grace_seconds)

    def hear(self, states: Iterable[ContainerState]) -> None:
        """Nothing: what happens to the containers is known here first."""

    def made_progress(self) -> None:
        """A batch was finished: the restart budget is full again."""
        self._batches += 1
        if self._failed_starts:
            self._failed_starts = 0
            self._out_of_memory = False
            self._update()

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Run a command inside a container; its exit code. Raises TimeoutError and OSError as `Pod.exec` says."""
        runner = self._runners[container]
        process = runner.process
        if process is None:
            raise ProcessLookupError(f"container `{container}` is not running")
        filled = runner.plan.filled
        words = [expand(word, filled.declared) for word in command]
        inside = None
        if runner.plan.sandbox is not None and await self._enters(process.pid, filled.variables):
            inside = sandbox.entering(process.pid, words)
        directory = runner.plan.working_directory
        return await _run(inside or words, filled.variables, directory, timeout)

    # What the containers tell: see `container.Events`.

    def started(self, name: str) -> None:
        """A container runs."""
        if self._listener is not None:
            self._listener.container_started(name)
        self._update()

    def exited(self, exit: ContainerExit, *, progressed: bool) -> None:  # noqa: A002  # the domain's word
        """A container ended by itself, or could not be started."""
        if not progressed:
            self._failed_starts += 1
        self._out_of_memory = exit.out_of_memory
        if self._listener is not None:
            self._listener.container_exited(exit)
        self._update()

    def finished_batches(self) -> int:
        """Batches finished since the worker's start."""
        return self._batches

    def _update(self) -> None:
        runners = self._runners.values()
        reasons = [f"container `{runner.plan.name}` {runner.reason}" for runner in runners if runner.reason]
        state = PodState(
            running=all(runner.process is not None for runner in runners),
            failed_starts=self._failed_starts,
            out_of_memory=self._out_of_memory,
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
            log.exception("container `%s` is lost", runner.plan.name, extra=self._labels())
            runner.kill()
            runner.reason = f"is lost: {error}"
            runner.tried.set()
            self._update()

    def _tell_of_namespace(self, uplink: Uplink) -> None:
        if uplink.missing:
            reach = f"reach nothing but each other and the operator ({uplink.missing})"
        else:
            reach = "reach the network, but of the machine's loopback only the operator"
        log.warning(
            "a port that worker %d needs is in use on this machine: its containers run in a network namespace of "
            "their own and %s; let `command` use $(CORTEX_PORT) to give them the machine's network",
            self._spec.worker,
            reach,
            extra=self._labels(),
        )

    async def _find_sandbox(self, uplink: Uplink) -> sandbox.Sandbox | None:
        local = self._spec.local
        if not local.mount_namespace:
            return None
        names = None if uplink.missing else uplink.resolv_conf
        box, why = await asyncio.to_thread(sandbox.find, self._directory, local.working_directory, names)
        if box is None:
            log.warning(
                "this machine gives no mount namespaces (%s): containers run as plain processes, and find the job's "
                "specification at $CORTEX_JOB_SPEC, the client's configuration in $CORTEX_CLI_CONFIG_DIR, and the "
                "worker's shared directory at $CORTEX_MNT instead of /cortex/spec/job.json, /cortex/client and /mnt",
                why,
                extra=self._labels(),
            )
        return box

    def _plan(self, container: Container, box: sandbox.Sandbox | None, guards: MemoryGuards) -> Plan:
        spec, local = self._spec, self._spec.local
        if box is not None:
            paths = {"CORTEX_CLI_CONFIG_DIR": "/cortex/client"}
        else:
            paths = {
                "CORTEX_CLI_CONFIG_DIR": str(self._directory / "client"),
                "CORTEX_JOB_SPEC": str(self._directory / "spec" / "job.json"),
                "CORTEX_MNT": str(self._directory / "mnt"),
            }
        limit = container.memory_bytes if container.HasField("memory_bytes") else None
        return Plan(
            name=container.name,
            filled=environment.fill(spec, container, self._environ, paths),
            working_directory=local.working_directory,
            sandbox=box,
            guard=lambda: guards.guard(container.name, limit),
            output=ContainerOutput(
                Path(local.log_directory, f"{container.name}.jsonl"),
                spec.worker,
                container.name,
                self._labels()["labels"],
            ),
        )

    def _labels(self) -> dict[str, dict[str, str]]:
        return labels(self._spec.api_name, self._spec.api_id, self._spec.job_id)

    async def _enters(self, pid: int, variables: Mapping[str, str]) -> bool:
        """Tries once whether this machine lets us into a container's namespaces."""
        if self._may_enter is None:
            trial = sandbox.entering(pid, ["/bin/sh", "-c", ":"])
            self._may_enter = trial is not None and await _run(trial, variables, None, 10.0) == 0
            if not self._may_enter:
                log.warning("probes of kind `exec` run outside of their container's namespaces: nsenter does not work")
        return self._may_enter


async def _run(command: list[str], variables: Mapping[str, str], directory: str | None, timeout: float) -> int:
    """Run a command to its end without its output; ends it and raises TimeoutError when it takes too long."""
    child = Child(command, variables, directory)
    waiting = asyncio.ensure_future(child.wait())
    try:
        return await asyncio.wait_for(asyncio.shield(waiting), timeout)
    finally:
        # nsenter goes last: it has to reap what it put into the container's PID namespace, or the namespace lingers.
        kill_descendants(child.pid)
        await asyncio.wait([waiting], timeout=_PROBE_END_SECONDS)
        child.signal_group(signal.SIGKILL)
        await waiting
