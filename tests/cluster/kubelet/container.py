"""One container: a process in its namespaces, its state as a pod's status tells it, and how it ends."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from services.common.kubernetes import Object
from tests.cluster.api.clock import now
from tests.cluster.api.rules.quantities import quantity
from tests.cluster.kubelet.mounts import Mount, sandboxed

_MEMORY_SECONDS = 0.1
_KILLED = 128 + signal.SIGKILL


_LAST_WORDS_BYTES = 2048


class Container:
    """Its states follow each other: waiting, running, terminated, and after a restart running again."""

    def __init__(self, spec: Object, logs: Path, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.state: Object = {"waiting": {"reason": "PodInitializing"}}
        self.last_state: Object = {}
        self.restarts = -1
        self.started = False
        """It runs, and its startup probe (if any) has succeeded."""
        self.ready = False
        self.has_run = asyncio.Event()
        self._logs = logs
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._first = 0
        self._out_of_memory = False
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def sidecar(self) -> bool:
        """An init container that goes on."""
        return self.spec.get("restartPolicy") == "Always"

    @property
    def running(self) -> bool:
        """Now."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """Of a container that has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def log(self, previous: bool = False) -> Path:
        """What it wrote, in its present life or the one before."""
        return self._logs / f"{max(0, self.restarts) - previous}.log"

    def wait(self, reason: str, message: str = "") -> None:
        """It does not run, and why."""
        if "terminated" in self.state:
            self.last_state = self.state
        self._become({"waiting": {"reason": reason} | ({"message": message} if message else {})})

    async def run(
        self, command: list[str], environment: dict[str, str], mounts: list[Mount], entering: list[str], hostname: str
    ) -> int:
        """One life, from start to end; the exit code."""
        if "terminated" in self.state:
            self.last_state = self.state
        self.restarts += 1
        self._out_of_memory = False
        started = now()
        reading, writing = os.pipe()
        directory = self.spec.get("workingDir") or environment.get("PWD") or "/"
        inside = sandboxed(command, mounts, directory, hostname, writing)
        with self.log().open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *entering,
                *inside,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[writing],
                start_new_session=True,
            )
        os.close(writing)
        information = await asyncio.to_thread(_read_all, reading)
        with contextlib.suppress(ValueError):
            self._first = int(json.loads(information)["child-pid"])
        self.started = "startupProbe" not in self.spec
        self.ready = "readinessProbe" not in self.spec and self.started
        self._become({"running": {"startedAt": started}})
        self.has_run.set()
        watching = asyncio.create_task(self._watch_memory())
        try:
            code = await self._process.wait()
        finally:
            watching.cancel()
        return self._ended(code if code >= 0 else 128 - code, started)

    def fail_to_start(self, message: str) -> int:
        """What cannot be started at all."""
        self.restarts += 1
        self.has_run.set()
        self._become({"terminated": _terminated(128, "StartError", now(), message)})
        return 128

    async def stop(self, deadline: float) -> None:
        """SIGTERM, and what is left at the deadline (`time.monotonic`) is killed."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Its whole namespace of processes, at once."""
        if self._process is None or self._process.returncode is not None:
            return
        for pid in (self._first, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)

    def kill_for_memory(self) -> None:
        """As the kernel does to who takes too much."""
        self._out_of_memory = True
        self.kill()

    def entering(self) -> list[str]:
        """What comes before a command that is to run inside."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._first}", *user, "--mount", "--pid", "--net", "--uts", "--"]

    def probed(self, *, started: bool | None = None, ready: bool | None = None) -> None:
        """What its probes say."""
        if started is not None:
            self.started = started
            if "readinessProbe" not in self.spec:
                self.ready = started
        if ready is not None:
            self.ready = ready
        self._changed()

    def status(self, image_id: str) -> Object:
        """As a pod's status tells it."""
        status: Object = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": image_id if self.restarts >= 0 else "",
        }
        status |= {"state": self.state, "lastState": self.last_state, "restartCount": max(0, self.restarts)}
        status |= {"ready": self.running and self.ready, "started": self.running and self.started}
        return status | ({"containerID": f"process://{self._first}"} if self.restarts >= 0 else {})

    def _ended(self, code: int, started: str) -> int:
        if self._out_of_memory:
            code = _KILLED
        reason = "OOMKilled" if self._out_of_memory else "Completed" if code == 0 else "Error"
        self.ready = self.started = False
        self._become({"terminated": _terminated(code, reason, started, self._last_words(code))})
        return code

    def _last_words(self, code: int) -> str:
        """What a failed container's status tells of its log, where its policy says so."""
        if code == 0 or self.spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        return self.log().read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace")

    def _signal(self, number: int) -> None:
        """To the command itself, which is the child of the namespace's first process."""
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            for child in psutil.Process(self._first).children():
                child.send_signal(number)

    def _become(self, state: Object) -> None:
        self.state = state
        self._changed()

    async def _watch_memory(self) -> None:
        """More than its limit ends it."""
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        while limit is not None:
            await asyncio.sleep(_MEMORY_SECONDS)
            if _resident_bytes(self._first) > quantity(limit):
                self.kill_for_memory()
                return


def _resident_bytes(pid: int) -> int:
    try:
        first = psutil.Process(pid)
        return sum(_rss(one) for one in [first, *first.children(recursive=True)])
    except psutil.Error:
        return 0


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _terminated(code: int, reason: str, started: str, message: str = "") -> Object:
    ended: Object = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}
    ended |= {"containerID": "process://0"}
    return ended | ({"message": message} if message else {})


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()


def found(program: str, environment: dict[str, str], mounts: list[Mount]) -> bool:
    """Whether the container can start this."""
    inside = any(Path(program).is_relative_to(mount.target) for mount in mounts)
    return inside or shutil.which(program, path=environment.get("PATH")) is not None
