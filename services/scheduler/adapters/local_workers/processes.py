"""Processes known by pid and start time, so that a pid that was used again is never mistaken for the one we started.

The end of a process is an event (a pidfd that becomes readable) for children and for those of an earlier scheduler
alike; where there are no pidfds it is looked for twice a second.
"""

import asyncio
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_POLL_SECONDS = 0.5
_GONE_SECONDS = 2.0
_QUIET_LOOKS = 2
_LOOK_AGAIN_SECONDS = 0.02
_START_TIME = 19  # field 22 of /proc/PID/stat, counted behind the command's name


def start_time(pid: int) -> float | None:
    """When a process started, on a scale of the machine's own; None when it is gone or only waits to be reaped.

    On Linux seconds since the machine's start, because the time of day may be corrected between two looks.
    """
    try:
        if sys.platform != "linux":
            return psutil.Process(pid).create_time()
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, psutil.NoSuchProcess):
        return None
    if fields[0] in ("Z", "X"):
        return None
    return int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")


class Watched:
    """A process whose end is told once."""

    def __init__(self, pid: int, started: float, on_end: Callable[[int | None], None]) -> None:
        """Call `on_end` on the event loop with the exit status (None when it was not our child).

        Raises ProcessLookupError when the process is gone.
        """
        self.pid = pid
        self._started = started
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        # Looked at after the pidfd was opened: it stays this process's, whatever becomes of the number.
        if start_time(pid) != started and not _is_our_zombie(pid):
            self._close()
            raise ProcessLookupError(pid)
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._finished)
        else:
            self._loop.call_later(_POLL_SECONDS, self._poll)

    def kill(self) -> None:
        """SIGKILL, to this process and no other."""
        with contextlib.suppress(ProcessLookupError):
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            elif start_time(self.pid) == self._started:
                os.kill(self.pid, signal.SIGKILL)

    def _finished(self) -> None:
        status = _reap(self.pid)
        self._close()
        self._on_end(status)

    def _poll(self) -> None:
        if start_time(self.pid) == self._started:
            self._loop.call_later(_POLL_SECONDS, self._poll)
        else:
            self._finished()

    def _close(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None


def end_marked(marked: Callable[[dict[str, str]], bool]) -> int:
    """SIGKILL every process of this machine whose environment is marked, and wait until they are gone.

    Returns how many there were. Blocks for some ms: call it in a thread. It is for what outlived its dequeuer: where
    there are no namespaces, or where one was just being made when its dequeuer was killed. Looks until it finds no
    more, and once again after a while: a process that was just forked is not seen, one that is just replacing its
    program shows no environment.
    """
    total, quiet = 0, 0
    while quiet < _QUIET_LOOKS:
        found = _end_marked_now(marked)
        total += found
        quiet = quiet + 1 if found == 0 else 0
        if quiet < _QUIET_LOOKS:
            time.sleep(_LOOK_AGAIN_SECONDS)
    return total


def _end_marked_now(marked: Callable[[dict[str, str]], bool]) -> int:
    ended = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and marked(process.environ()):
                process.kill()
                ended.append(process.pid)
        except (psutil.Error, OSError):
            continue  # gone, or another user's
    if ended:
        _wait_until_gone(ended)
    return len(ended)


def _wait_until_gone(pids: list[int]) -> None:
    if not hasattr(os, "pidfd_open"):
        return
    deadline = time.monotonic() + _GONE_SECONDS
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            finally:
                os.close(fd)


def _is_our_zombie(pid: int) -> bool:
    """A child that has ended and waits for us to take note."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _reap(pid: int) -> int | None:
    try:
        waited, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if waited == pid else None
