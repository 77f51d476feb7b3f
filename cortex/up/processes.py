"""The process tree: starting parts, reaping whoever ends, and ending everything below this process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TERM_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL for what is left at the very end. All of it had its chance to end well before."""


def become_subreaper() -> None:
    """Adopt every descendant that loses its parent (Linux; elsewhere the lifeline alone ends orphans)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Nursery:
    """Starts child processes and learns of their ends. One SIGCHLD handler reaps them all, orphans too."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[int]]] = {}

    def install(self) -> None:
        """Begin to reap, on the running event loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], fds: Sequence[int], output_fd: int
    ) -> tuple[int, asyncio.Future[int]]:
        """Start a process in a session of its own; its pid, and its exit code to come (negative: the signal).

        A session of its own, because Ctrl-C in a terminal goes to the whole foreground group, and the parts are to
        hear of it from here, in order.
        """
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=fds,
            start_new_session=True,
        )
        ended = asyncio.get_running_loop().create_future()
        self._known[process.pid] = (process, ended)
        return process.pid, ended

    def reap(self) -> None:
        """Take note of everyone who has ended."""
        while (pid := _ended_child()) is not None:
            if pid in self._known:
                process, ended = self._known.pop(pid)
                code = process.wait()  # has ended: does not wait
                if not ended.done():
                    ended.set_result(code)
            else:
                os.waitpid(pid, 0)  # an orphan


def _ended_child() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def end_descendants(*, at_once: bool) -> None:
    """End everything below this process and reap it: SIGTERM, then SIGKILL; `at_once` leaves the first out."""
    if not at_once:
        _signal_all(signal.SIGTERM)
        if _reap_until(time.monotonic() + TERM_GRACE_S):
            return
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:  # again and again, for what was being started just now
        _signal_all(signal.SIGKILL)
        if _reap_until(time.monotonic() + 0.05):
            return


def _reap_until(deadline: float) -> bool:
    """True when no child is left; False at the deadline."""
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            time.sleep(0.005)  # waitpid has no timeout
    return False


def _signal_all(number: signal.Signals) -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """The pids of all processes below one, parents first; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            stat = entry.read_bytes()
            parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]
