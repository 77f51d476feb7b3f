"""The containers of one worker as processes of this machine.

`LocalPod` puts the pieces together: `environment` and `expansion` say what to run, `sandbox` where, `memory` under
which limit, `process` runs it.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cortex.batch.v1.worker_spec_pb2 import Container, WorkerSpec
from services.common.errors import Category, CortexError
from services.dequeuer.pod import cgroups, environment, network, sandbox
from services.dequeuer.pod.child import run
from services.dequeuer.pod.expansion import expand
from services.dequeuer.pod.group import ContainerGroup
from services.dequeuer.pod.memory import MemoryGuards
from services.dequeuer.pod.process import ProcessLauncher
from services.dequeuer.pod.uplink import Uplink
from services.dequeuer.ports import PodListener

log = logging.getLogger(__name__)


class LocalPod(ContainerGroup):
    """A `Pod` of processes. `environ` is the shell's environment as the dequeuer inherited it."""

    news_s = 1.0

    def __init__(self, spec: WorkerSpec, environ: Mapping[str, str]) -> None:
        super().__init__(spec)
        self._environ = environ
        self._directory = Path(spec.local.directory)
        self._network: network.Network | None = None
        self._launchers: dict[str, ProcessLauncher] = {}
        self._may_enter: bool | None = None

    async def start(self, listener: PodListener) -> None:
        """Start every container; return when each was started once, well or not.

        Raises `CortexError` when the worker's directories or its network namespace cannot be used.
        """
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
            self._launchers[container.name] = self._launcher(container, box, guards)
        await self._run(listener, self._launchers.values())

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to every container, SIGKILL after the grace; returns when all are gone."""
        await super().stop(grace_seconds)
        if self._network is not None:
            self._network.close()

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Run a command inside a container; its exit code. Raises TimeoutError and OSError as `Pod.exec` says."""
        launcher = self._launchers[container]
        if launcher.pid is None:
            raise ProcessLookupError(f"container `{container}` is not running")
        filled = launcher.filled
        words = [expand(word, filled.declared) for word in command]
        inside = None
        if launcher.sandbox is not None and await self._enters(launcher.pid, filled.variables):
            inside = sandbox.entering(launcher.pid, words)
        return await run(inside or words, filled.variables, launcher.working_directory, timeout)

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

    def _launcher(self, container: Container, box: sandbox.Sandbox | None, guards: MemoryGuards) -> ProcessLauncher:
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
        return ProcessLauncher(
            name=container.name,
            filled=environment.fill(spec, container, environment.from_shell(self._environ), paths),
            working_directory=local.working_directory,
            sandbox=box,
            guard=lambda: guards.guard(container.name, limit),
        )

    async def _enters(self, pid: int, variables: Mapping[str, str]) -> bool:
        """Tries once whether this machine lets us into a container's namespaces."""
        if self._may_enter is None:
            trial = sandbox.entering(pid, ["/bin/sh", "-c", ":"])
            self._may_enter = trial is not None and await run(trial, variables, None, 10.0) == 0
            if not self._may_enter:
                log.warning("probes of kind `exec` run outside of their container's namespaces: nsenter does not work")
        return self._may_enter
