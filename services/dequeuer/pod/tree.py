"""Process trees, from Linux's /proc. Elsewhere there are no descendants to be found."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def descendants(pid: int) -> Iterator[int]:
    """The children of a process, theirs, and so on. A tree that changes meanwhile may show or miss what changed."""
    waiting = [pid]
    while waiting:
        for task in _tasks(waiting.pop()):
            try:
                children = [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue  # the thread ended meanwhile
            yield from children
            waiting += children


def kill_descendants(pid: int) -> None:
    """End all descendants of a process, not the process itself.

    All are stopped before the first is ended: the children of an ended process are nobody's here any more, and those
    of a running one may become more.
    """
    found: set[int] = set()
    while new := set(descendants(pid)) - found:
        _signal(new, signal.SIGSTOP)
        found |= new
    _signal(found, signal.SIGKILL)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
