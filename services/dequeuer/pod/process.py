"""One start of one container: a tree of processes that is started, signalled and waited for as one.

In a sandbox our child is bubblewrap; below it is the first process of the PID namespace, which leads the container's
process group and ignores SIGTERM; below that is the command. Without a PID namespace the command stands in the place of
that process, and without a sandbox in the place of bubblewrap.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.dequeuer.pod.child import Child, readable
from services.dequeuer.pod.container import CannotStart, Ended, Running
from services.dequeuer.pod.environment import Filled, check_arguments
from services.dequeuer.pod.memory import MemoryGuard
from services.dequeuer.pod.sandbox import Sandbox
from services.dequeuer.pod.tree import descendants

_TEARDOWN_SECONDS = 0.3
_MAX_INTERPRETER_LINE = 256
"""As much of a script's first line as the kernel reads."""


class ContainerProcess:
    """A running container."""

    def __init__(self, child: Child, sandbox: Sandbox | None = None, first: int | None = None) -> None:
        self._child = child
        self._sandbox = sandbox
        self._ended = False
        self.pid = child.pid if first is None else first
        """The first process of the container's tree."""
        self._first_fd = _pidfd(first) if first is not None else None

    async def wait(self) -> tuple[int | None, int | None]:
        """Exit code or signal, once the container's command has ended and so has everything that it started.

        The kernel ends the rest at once; it can take long only to be reaped, and that is not waited for.

        From a sandbox a signal comes as 128 + its number, as from a shell; such a code is taken for the signal.
        """
        status = await self._child.wait()
        if self._first_fd is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TEARDOWN_SECONDS):
                    await readable(self._first_fd)
        if self._sandbox is None or not self._sandbox.pid_namespace:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what stayed behind in its process group
        self._ended = True
        if self._first_fd is not None:
            os.close(self._first_fd)
        if status < 0:
            return None, -status
        if self._sandbox is not None and 128 < status <= 128 + signal.NSIG:
            return None, status - 128
        return status, None

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to the command and its process group."""
        if self._sandbox is None:
            self._child.signal_group(signal.SIGTERM)
        elif self._first_fd is None or (self._sandbox.pid_namespace and next(descendants(self.pid), None) is None):
            self.kill()  # the command was not started yet, and nobody else would hear a SIGTERM
        else:
            self._signal_first(lambda: os.killpg(self.pid, signal.SIGTERM))

    def kill(self) -> None:
        """End it now, with everything that it started."""
        self._child.signal_group(signal.SIGKILL)
        self._signal_first(lambda: os.killpg(self.pid, signal.SIGKILL))

    def _signal_first(self, send: Callable[[], None]) -> None:
        if self._first_fd is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send()


@dataclass(slots=True)
class ProcessLauncher:
    """Starts a container's command as a process of this machine."""

    name: str
    filled: Filled
    working_directory: str
    sandbox: Sandbox | None
    guard: Callable[[], MemoryGuard]
    pid: int | None = None
    """The first process of what was started; None once it has ended."""

    async def launch(self, output_fd: int) -> Running:
        """Start it. Raises `CannotStart` when its program is not there, OSError when the system refuses."""
        command, variables = list(self.filled.command), self.filled.variables
        hidden = self.sandbox is not None and bool(command) and self.sandbox.hides(command[0])
        refused = why_not_startable(command, variables, self.working_directory, hidden)
        if refused := refused or check_arguments(command, variables):
            raise CannotStart(refused, for_good=True)
        guard = self.guard()
        try:
            process = await _launch(command, variables, self.working_directory, self.sandbox, guard, output_fd)
        except BaseException:
            guard.close()
            raise
        self.pid = process.pid
        return _Guarded(self, process, guard)


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A process whose memory is watched."""

    launcher: ProcessLauncher
    process: ContainerProcess
    guard: MemoryGuard

    async def wait(self) -> Ended:
        process, guard = self.process, self.guard
        watch = asyncio.create_task(guard.watch(process.pid, process.kill), name=f"memory of {self.launcher.name}")
        try:
            code, number = await process.wait()
            return Ended(code, number, guard.evidence(number))
        finally:
            watch.cancel()
            self.launcher.pid = None
            guard.close()

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


async def _launch(
    command: list[str],
    variables: Mapping[str, str],
    working_directory: str,
    sandbox: Sandbox | None,
    guard: MemoryGuard,
    output_fd: int,
) -> ContainerProcess:
    """Start a container's command. Raises OSError when the system refuses."""
    if sandbox is None:
        wrapped = guard.wrap(_bound_to_us(command))
        return ContainerProcess(Child(wrapped, variables, working_directory, output_fd))
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            try:
                ours.sendall(b"x")  # waits there for bubblewrap, which reads it when the mounts are made, and closes
                wrapped = guard.wrap(sandbox.wrap(command, writing, theirs.fileno()))
                child = Child(wrapped, variables, working_directory, output_fd, [writing, theirs.fileno()])
            finally:
                os.close(writing)
        first = await _first_process(reading)
        await readable(ours.fileno())  # nobody has the other end any more: the mounts are made, or it failed
        return ContainerProcess(child, sandbox, first)
    finally:
        os.close(reading)
        ours.close()


async def _first_process(fd: int) -> int | None:
    """The namespace's first process as bubblewrap tells it; None when bubblewrap ended without a word."""
    told = b""
    while not told.rstrip().endswith(b"}"):
        await readable(fd)
        piece = os.read(fd, 4096)
        if not piece:
            return None
        told += piece
    return int(json.loads(told)["child-pid"])


def _pidfd(pid: int) -> int | None:
    """None when the process is gone already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _bound_to_us(command: list[str]) -> list[str]:
    """The command, ended by the kernel when we end. Its own children are not: whoever started us looks for those."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def why_not_startable(command: list[str], variables: Mapping[str, str], directory: str, hidden: bool) -> str:
    """Why a container's command cannot be run, as the rest of a sentence about it; empty when it can be tried.

    `hidden`: the command is a path that only exists inside the sandbox, so that nothing can be said from outside.
    """
    if not command:
        return "has no command: give it `command` in the API's configuration"
    if not Path(directory).is_dir():
        return f"cannot be started: `{command[0]}` is to run in {directory}, and there is no such directory"
    program = command[0]
    if hidden:
        return ""
    if "/" not in program:
        path = variables.get("PATH", os.defpath)
        found = shutil.which(program, path=path)
        if found is None:
            return (
                f"cannot be started: its command `{program}` was not found on its PATH, which is that of `cortex up` "
                "where `env` sets no other (install it, or write its full path)"
            )
        return _without_interpreter(program, Path(directory, found))
    full = Path(directory, program)
    if not full.is_file():
        return f"cannot be started: its command `{program}` does not exist (looked for {full})"
    if not os.access(full, os.X_OK):
        return f"cannot be started: its command `{program}` is not executable (try: chmod +x {full})"
    return _without_interpreter(program, full)


def _without_interpreter(program: str, script: Path) -> str:
    """Says so where a script's first line names a program that is not there; else empty."""
    try:
        with script.open("rb") as file:
            first = file.readline(_MAX_INTERPRETER_LINE)
    except OSError:  # may be run all the same
        return ""
    words = os.fsdecode(first[2:]).split(maxsplit=1) if first.startswith(b"#!") else []
    if not words or Path(words[0]).exists() or not words[0].startswith("/"):
        return ""
    return (
        f"cannot be started: its command `{program}` is a script of `{words[0]}`, as its first line says, and that does"
        " not exist (install it, or correct the line)"
    )
