"""Holding a container to its memory limit, and evidence of what ran out of memory.

Where the machine lets us, the kernel does it (`cgroups.py`). Elsewhere on Linux the tree's memory is measured twice a
second, and a tree over its limit is ended. Evidence is the cgroup's count of kills, which is exact, or without a cgroup
our own measurement, or, for a SIGKILL, the machine's own count having risen just before. A bare SIGKILL is no evidence,
and what the kernel had to do to others a while ago is none either.
"""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from services.dequeuer.pod import cgroups
from services.dequeuer.pod.tree import descendants

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5
_LOOKS = 20
"""The machine's count is compared with the one so many looks ago: a large process takes seconds to go."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGuard:
    """Watches over one start of one container. With no limit it only looks for evidence."""

    def __init__(self, limit_bytes: int | None, group: cgroups.MemoryCgroup | None) -> None:
        self._limit = limit_bytes
        self._group = group
        self._machine_kills = deque([cgroups.machine_oom_kills()], maxlen=_LOOKS)
        self._group_kills = group.oom_kills() if group else 0
        self._measured: int | None = None

    def wrap(self, command: list[str]) -> list[str]:
        """The command, under the limit where the kernel holds it."""
        return self._group.entering(command) if self._group else command

    async def watch(self, pid: int, end: Callable[[], None]) -> None:
        """Until cancelled, call `end` when the tree below `pid` is over the limit. Nothing to do for a cgroup."""
        while self._group is None:
            await asyncio.sleep(_WATCH_SECONDS)
            self.look()
            if self._limit is not None and self._measured is None and self._is_over(pid, self._limit):
                end()

    def look(self) -> None:
        """Note what the machine's count is now."""
        self._machine_kills.append(cgroups.machine_oom_kills())

    def _is_over(self, pid: int, limit: int) -> bool:
        # Resident pages count shared ones several times: only where they exceed the limit is it worth asking for the
        # exact figure, which costs a walk over the page tables.
        if _tree_bytes(pid, _resident_bytes) <= limit:
            return False
        used = _tree_bytes(pid, _proportional_bytes)
        if used <= limit:
            return False
        self._measured = used
        return True

    def evidence(self, signal_number: int | None) -> str:
        """How it is known that memory ran out, for people; empty where it did not, as far as anyone can tell."""
        limit = f"its limit (compute.mem {human_bytes(self._limit)})" if self._limit is not None else ""
        if self._measured is not None:
            return f"used more memory ({human_bytes(self._measured)}) than {limit}"
        if self._group is not None:  # it counts whom the kernel ends for the machine's sake, too
            return f"used more memory than {limit}" if self._group.oom_kills() > self._group_kills else ""
        if signal_number == signal.SIGKILL and cgroups.machine_oom_kills() > self._machine_kills[0]:
            return "was ended by the kernel because the machine ran out of memory"
        return ""

    def close(self) -> None:
        """Remove what was made for the container, whose processes are gone."""
        if self._group is not None:
            self._group.remove()


class MemoryGuards:
    """Makes guards in the best way this machine has."""

    def __init__(self, hierarchy: cgroups.Hierarchy | None) -> None:
        self._hierarchy = hierarchy

    def guard(self, name: str, limit_bytes: int | None) -> MemoryGuard:
        """A guard for one start of a container."""
        if limit_bytes is None or self._hierarchy is None:
            return MemoryGuard(limit_bytes, None)
        try:
            return MemoryGuard(limit_bytes, cgroups.MemoryCgroup(self._hierarchy, name, limit_bytes))
        except OSError as error:
            log.warning("no memory cgroup for container `%s` (%s): its memory is measured instead", name, error)
            return MemoryGuard(limit_bytes, None)


def human_bytes(number: int) -> str:
    """A size as Kubernetes writes quantities, such as `512Mi`."""
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if number >= factor:
            return f"{number / factor:.4g}{unit}"
    return str(number)


def _tree_bytes(pid: int, measure: Callable[[int], int]) -> int:
    return measure(pid) + sum(measure(process) for process in descendants(pid))


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return _resident_bytes(pid)
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
