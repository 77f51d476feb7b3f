"""The containers of one worker as real containers, run from their images by podman or docker.

Their pod is this process's network namespace: the containers join it, so that they have one loopback interface with
each other and with the dequeuer, as in a pod of Kubernetes, and every port is theirs. On it the dequeuer relays the
gateway and the collector. `/cortex/spec`, `/cortex/client` and `/mnt` are mounts of the worker's own directories.

A container is made (`create`), then run by a child of ours that carries its output (`start --attach`); how it ended is
asked for (`inspect`), and it is removed. The next start is a new container. That memory ran out is the engine's word
alone: it has a cgroup for each container. Engines keep containers alive whoever dies,
so a child waits on a pipe that the kernel closes however we end, and removes what is left then.
"""

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cortex.batch.v1.worker_spec_pb2 import Container, WorkerSpec
from services.common.engine import (
    JOB_LABEL,
    SYSTEM_LABEL,
    WORKER_LABEL,
    ContainerPlan,
    Engine,
    Resources,
    container_name,
    last_line,
    unmarked,
)
from services.common.errors import Category, CortexError
from services.dequeuer.pod import environment, network
from services.dequeuer.pod.child import Child, run
from services.dequeuer.pod.container import CannotStart, Ended, Running
from services.dequeuer.pod.expansion import expand
from services.dequeuer.pod.group import ContainerGroup
from services.dequeuer.pod.memory import human_bytes
from services.dequeuer.ports import PodListener

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
"""Between looks whether a container runs: engines differ in how they tell."""

_NOT_THERE = re.compile(r"not found|no such file or directory|permission denied|not a directory", re.IGNORECASE)
"""What engines say of a command that an image does not have."""

_OOM_FILE = "oom"
"""What podman's monitor leaves when the kernel has ended a container for its memory; older ones leave it where podman
was started, and podman does not find it there."""


class EnginePod(ContainerGroup):
    """A `Pod` of containers. `environ` is what the engine's own program inherits."""

    news_s = 2.0

    def __init__(self, spec: WorkerSpec, environ: Mapping[str, str]) -> None:
        super().__init__(spec)
        self._environ = unmarked(environ)
        self._directory = Path(spec.local.directory)
        self._engine = Engine(spec.local.engine.program)
        self._network: network.Network | None = None
        self._sweeper: subprocess.Popen[bytes] | None = None
        self._launchers: dict[str, EngineLauncher] = {}

    async def start(self, listener: PodListener) -> None:
        """Start every container; return when each was started once, well or not.

        Raises `CortexError` when the worker's directories or its network cannot be used.
        """
        self._network = await network.prepare(self._spec.local)
        uplink = self._network.uplink
        if uplink.missing and not self._spec.local.engine.infra:
            log.warning("the containers reach nothing but each other and the operator: %s", uplink.missing)
        try:
            mounts = self._mounts(None if uplink.missing else uplink.resolv_conf)
            os.makedirs(self._spec.local.log_directory, exist_ok=True)  # noqa: PTH103  # once, at the start
            self._sweeper = self._start_sweeper()
        except OSError as error:
            message = f"the containers cannot be prepared: {error}"
            raise CortexError("worker.cannot_start", message, Category.INTERNAL) from error
        for container in self._spec.containers:
            self._launchers[container.name] = self._launcher(container, mounts)
        await self._run(listener, self._launchers.values())

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to every container, SIGKILL after the grace; returns when all are gone."""
        await super().stop(grace_seconds)
        if self._sweeper is not None and self._sweeper.stdin is not None:
            self._sweeper.stdin.close()
            await asyncio.to_thread(self._sweeper.wait)
            self._sweeper = None
        if self._network is not None:
            self._network.close()

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        """Run a command inside a container; its exit code. Raises TimeoutError and OSError as `Pod.exec` says."""
        launcher = self._launchers[container]
        if launcher.running is None:
            raise ProcessLookupError(f"container `{container}` is not running")
        words = [expand(word, launcher.declared) for word in command]
        return await run(self._engine.exec(launcher.running, words), self._environ, None, timeout)

    def _start_sweeper(self) -> subprocess.Popen[bytes]:
        command = self._engine.sweep_after(WORKER_LABEL, self._spec.worker_id)
        # Its output goes where ours goes. In a session of its own: it is to outlive us.
        return subprocess.Popen(
            command,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def _mounts(self, resolv_conf: Path | None) -> list[tuple[str, str, str]]:
        names = " ".join(("localhost", *self._spec.local.engine.host_names))
        hosts, shared = self._directory / "hosts", self._directory / "mnt"
        hosts.write_text(f"127.0.0.1 {names}\n::1 localhost\n")
        shared.chmod(0o777)  # whatever user an image runs as, as an emptyDir of Kubernetes
        mounts = [
            (str((self._directory / "spec").resolve()), "/cortex/spec", "ro"),
            (str(self._directory / "client"), "/cortex/client", "rw"),
            (str(shared), "/mnt", "rw"),
            (str(hosts), "/etc/hosts", "ro"),
        ]
        return [*mounts, (str(resolv_conf), "/etc/resolv.conf", "ro")] if resolv_conf is not None else mounts

    def _launcher(self, container: Container, mounts: Sequence[tuple[str, str, str]]) -> "EngineLauncher":
        spec, told = self._spec, self._spec.local.engine
        filled = environment.fill(spec, container, {}, {"CORTEX_CLI_CONFIG_DIR": "/cortex/client"})
        plan = ContainerPlan(
            name=container.name,
            image=container.image,
            command=filled.command,
            network=self._engine.network_of(os.getpid(), told.infra),
            labels={WORKER_LABEL: spec.worker_id, JOB_LABEL: spec.job_id, SYSTEM_LABEL: told.system},
            variables=filled.variables,
            mounts=mounts,
            resources=Resources(
                memory_bytes=container.memory_bytes if container.HasField("memory_bytes") else None,
                shm_bytes=container.shm_bytes if container.HasField("shm_bytes") else None,
                cpu_millis=container.cpu_millis,
                gpus=container.gpus,
                chips=container.chips,
            ),
        )
        return EngineLauncher(self._engine, self._environ, spec.local.directory, spec.worker_id, plan, filled.declared)


@dataclass(slots=True)
class EngineLauncher:
    """Starts one container, each time anew."""

    engine: Engine
    environ: Mapping[str, str]
    directory: str
    """The worker's. Each start runs in a directory of its own in it: see `_OOM_FILE`."""
    worker_id: str
    plan: ContainerPlan
    declared: Mapping[str, str]
    running: str | None = None
    """The name of what runs."""
    starts: int = 0

    @property
    def name(self) -> str:
        """The container's, as the API's configuration has it."""
        return self.plan.name

    async def launch(self, output_fd: int) -> Running:
        """Make a container and start it. Raises `CannotStart`, OSError when there is no engine."""
        self.starts += 1
        name = container_name(self.worker_id, self.plan.name, self.starts)
        if refused := environment.check_arguments(self.plan.command, self.plan.variables):
            raise CannotStart(refused, for_good=True)
        made = await self.ask(self.engine.create(replace(self.plan, name=name)))
        if made.returncode != 0:
            raise CannotStart(f"cannot be made: {self.engine.program}: {last_line(made.stderr)}", for_good=False)
        place = Path(self.directory, name)
        await asyncio.to_thread(place.mkdir, exist_ok=True)
        child = Child(self.engine.start(name), self.environ, str(place), output_fd)
        process = EngineProcess(self, name, child, place)
        try:
            await process.begin()
        except BaseException:
            process.kill()
            raise
        self.running = name
        return process

    async def ask(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run the engine's program to its end, on a thread."""

        def call() -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                command,
                env=dict(self.environ),
                cwd=self.directory,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                start_new_session=True,
            )

        return await asyncio.to_thread(call)

    async def state_of(self, name: str) -> dict[str, Any]:
        """What the engine says of a container; nothing when it does not know it."""
        told = await self.ask(self.engine.inspect(name))
        try:
            state = json.loads(told.stdout)
        except ValueError:
            return {}
        return state if isinstance(state, dict) else {}


class EngineProcess:
    """One start of a container: the engine's program that carries its output."""

    def __init__(self, launcher: EngineLauncher, name: str, child: Child, place: Path) -> None:
        self._launcher = launcher
        self._name = name
        self._place = place
        self._carried = asyncio.create_task(child.wait(), name=f"output of {name}")
        self._sent: list[subprocess.Popen[bytes]] = []
        self._ended = False

    async def begin(self) -> None:
        """Return when it runs, or has run. Raises `CannotStart`."""
        while True:
            over = self._carried.done()
            state = await self._launcher.state_of(self._name)
            if state.get("Status") not in ("created", "initialized", "configured", None):
                return
            if over:
                break
            await asyncio.wait([self._carried], timeout=_LOOK_SECONDS)
        # What was said went to the container's output. Asked again, it says why here.
        launcher = self._launcher
        again = await launcher.ask(launcher.engine.start_detached(self._name))
        words = last_line(again.stderr)
        await self._remove()
        reason = f"could not be started: {launcher.engine.program}: {words}"
        raise CannotStart(reason, for_good=again.returncode != 0 and _NOT_THERE.search(words) is not None)

    async def wait(self) -> Ended:
        """How it ended. Where only what carries its output has ended, it is ended too."""
        await self._carried
        self._ended = True
        for sending in self._sent:
            await asyncio.to_thread(sending.wait)
        state = await self._launcher.state_of(self._name)
        evidence = self._evidence(state)
        self._launcher.running = None
        await self._remove()
        if state.get("Running") or "ExitCode" not in state:
            return Ended(None, signal.SIGKILL)
        code = int(state["ExitCode"])
        number = code - 128 if 128 < code <= 128 + signal.NSIG else None
        return Ended(None if number else code, number, evidence)

    def terminate(self) -> None:
        """SIGTERM to its first process."""
        self._send("TERM")

    def kill(self) -> None:
        """SIGKILL: the kernel ends the rest of it."""
        self._send("KILL")

    def _send(self, name: str) -> None:
        """Without waiting: the end is seen when it comes."""
        if not self._ended:
            sending = subprocess.Popen(
                self._launcher.engine.signal(self._name, name),
                env=dict(self._launcher.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._sent.append(sending)

    async def _remove(self) -> None:
        told = await self._launcher.ask(self._launcher.engine.remove(self._name))
        if told.returncode != 0:
            log.warning("container %s cannot be removed: %s", self._name, last_line(told.stderr))
        await asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True)

    def _evidence(self, state: Mapping[str, Any]) -> str:
        if not state.get("OOMKilled") and not (self._place / _OOM_FILE).exists():
            return ""
        if (limit := self._launcher.plan.resources.memory_bytes) is not None:
            return f"used more memory than its limit (compute.mem {human_bytes(limit)})"
        return "was ended because memory ran out"
