"""Starting a process and waiting for its end, the same on every event loop.

`subprocess.Popen` on the loop's thread: bubblewrap's `--die-with-parent` means the thread that forked, and Popen closes
every descriptor that the process is not meant to have. The end is awaited through a pidfd, else in a thread.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from services.dequeuer.pod.tree import kill_descendants

_END_SECONDS = 0.2


class Child:
    """A process of ours in a session of its own, without standard input."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        directory: str | None,
        output: int = subprocess.DEVNULL,
        more_fds: Sequence[int] = (),
    ) -> None:
        """Start it. `output` takes standard output and error. Raises OSError, ValueError when that cannot be done."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(variables),
            cwd=directory,
            pass_fds=more_fds,
            start_new_session=True,
        )
        self.pid = self._process.pid

    async def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        if hasattr(os, "pidfd_open") and self._process.returncode is None:
            fd = os.pidfd_open(self.pid)
            try:
                await readable(fd)
            finally:
                os.close(fd)
            return self._process.wait()
        return await asyncio.to_thread(self._process.wait)

    def signal_group(self, number: int) -> None:
        """Signal its process group, unless it was waited for: then the number may be another's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


async def run(command: Sequence[str], variables: Mapping[str, str], directory: str | None, timeout: float) -> int:
    """Run a command to its end without its output; ends it and raises TimeoutError when it takes too long."""
    child = Child(command, variables, directory)
    waiting = asyncio.ensure_future(child.wait())
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(waiting)
    finally:
        # nsenter goes last: it has to reap what it put into the container's PID namespace, or the namespace lingers.
        kill_descendants(child.pid)
        await asyncio.wait([waiting], timeout=_END_SECONDS)
        child.signal_group(signal.SIGKILL)
        await waiting


async def readable(fd: int) -> None:
    """Return when a descriptor can be read; a pidfd can when its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
