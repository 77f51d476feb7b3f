"""One start of one container: a tree of processes that is started, signalled and waited for as one.

In a sandbox our child is bubblewrap; below it is the first process of the PID namespace, which leads the container's
process group and ignores SIGTERM; below that is the command. Without one our child is the command, leading its group.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from services.dequeuer.pod.memory import MemoryGuard
from services.dequeuer.pod.sandbox import Sandbox

_TEARDOWN_SECONDS = 5.0


class ContainerProcess:
    """A running container."""

    def __init__(self, child: asyncio.subprocess.Process, first: int | None, sandboxed: bool) -> None:
        self._child = child
        self._sandboxed = sandboxed
        self._ended = False
        self.pid = child.pid if first is None else first
        """The first process of the container's tree."""
        self._first_fd = os.pidfd_open(first) if first is not None else None

    async def wait(self) -> tuple[int | None, int | None]:
        """Exit code or signal, once the container's command has ended and so has everything that it started.

        From a sandbox a signal comes as 128 + its number, as from a shell; such a code is taken for the signal.
        """
        status = await self._child.wait()
        if self._first_fd is not None:
            await _readable(self._first_fd, _TEARDOWN_SECONDS)
            os.close(self._first_fd)
        elif not self._sandboxed:
            self._signal_group(signal.SIGKILL)  # what stayed behind in its process group
        self._ended = True
        if status < 0:
            return None, -status
        if self._sandboxed and 128 < status <= 128 + signal.NSIG:
            return None, status - 128
        return status, None

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to the command and its process group."""
        if self._sandboxed and self.pid == self._child.pid:  # the namespaces are not made yet
            self.kill()
        else:
            self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, with everything that it started."""
        if self._ended:
            return
        if not self._sandboxed:
            self._signal_group(signal.SIGKILL)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, signal.SIGKILL)
        if self._first_fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


async def launch(
    command: list[str],
    variables: Mapping[str, str],
    working_directory: str,
    sandbox: Sandbox | None,
    guard: MemoryGuard,
    output_fd: int,
) -> ContainerProcess:
    """Start a container's command. Raises OSError when the system refuses."""
    if sandbox is None:
        child = await _spawn(guard.wrap(_bound_to_us(command)), variables, working_directory, output_fd)
        return ContainerProcess(child, None, sandboxed=False)
    reading, writing = os.pipe()
    try:
        wrapped = guard.wrap(sandbox.wrap(command, writing))
        child = await _spawn(wrapped, variables, working_directory, output_fd, writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return ContainerProcess(child, await _first_process(reading), sandboxed=True)


async def _spawn(
    command: list[str], variables: Mapping[str, str], working_directory: str, output_fd: int, *more_fds: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output_fd,
        stderr=output_fd,
        pass_fds=more_fds,
        env=dict(variables),
        cwd=working_directory,
        start_new_session=True,
    )


async def _first_process(fd: int) -> int | None:
    """The namespace's first process as bubblewrap tells it; None when bubblewrap ended without a word."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(fd, "rb", buffering=0)  # closed with the transport
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        told = json.loads(await reader.readuntil(b"}"))
        return int(told["child-pid"])
    except asyncio.IncompleteReadError:
        return None
    finally:
        transport.close()


async def _readable(pidfd: int, timeout: float) -> None:
    """Return when the process of a pidfd has ended, or after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), timeout)
    finally:
        loop.remove_reader(pidfd)


def _bound_to_us(command: list[str]) -> list[str]:
    """The command, ended by the kernel when we end. Its own children are not: whoever started us looks for those."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command


def why_not_startable(name: str, command: list[str], variables: Mapping[str, str], directory: str, hidden: bool) -> str:
    """What is wrong with a container's command, for people; empty when it can be tried.

    `hidden`: the command is a path that only exists inside the sandbox, so that nothing can be said from outside.
    """
    if not command:
        return f"container `{name}` has no command: give it `command` in the API's configuration"
    if not Path(directory).is_dir():
        return f"container `{name}` cannot run in {directory}: there is no such directory"
    program = command[0]
    if hidden:
        return ""
    if "/" not in program:
        path = variables.get("PATH", os.defpath)
        if shutil.which(program, path=path) is None:
            return f"the command `{program}` of container `{name}` was not found on PATH ({path})"
        return ""
    full = Path(directory, program)
    if not full.is_file():
        return f"the command `{program}` of container `{name}` does not exist (looked for {full})"
    if not os.access(full, os.X_OK):
        return f"the command `{program}` of container `{name}` is not executable (try: chmod +x {full})"
    return ""
