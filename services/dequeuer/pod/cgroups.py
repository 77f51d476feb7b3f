"""Memory cgroups: the kernel's own way to hold a tree of processes to a limit, and to say that it had to.

A container's cgroup is made beside ours where the machine lets us: cgroup v1's memory controller below our own cgroup,
or, in cgroup v2, a sibling of our own (a v2 cgroup that holds processes can have no limited children), which takes a
delegated, writable parent. A process enters by writing its pid before it becomes the container, so that nothing of the
container is ever outside. Names begin with `cortex-PID-`, the pid of the dequeuer that made them: that is how the
leftovers of dead ones are recognized.
"""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PREFIX = "cortex-"

_ENTER = 'echo $$ > "$0" && exec "$@"'
_REMOVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where cgroups with a memory limit can be made."""

    base: Path
    version: int

    @property
    def limit_file(self) -> str:
        """The file of a cgroup that holds its limit."""
        return "memory.limit_in_bytes" if self.version == 1 else "memory.max"

    @property
    def events_file(self) -> str:
        """The file of a cgroup that counts the processes ended for lack of memory."""
        return "memory.oom_control" if self.version == 1 else "memory.events"


class MemoryCgroup:
    """One container's cgroup."""

    def __init__(self, hierarchy: Hierarchy, name: str, limit_bytes: int) -> None:
        """Make it. Raises OSError where the machine does not allow it."""
        self._hierarchy = hierarchy
        self.path = hierarchy.base / f"{PREFIX}{os.getpid()}-{name}"
        self.path.mkdir(exist_ok=True)
        (self.path / hierarchy.limit_file).write_text(str(limit_bytes))
        # Without this a container over its limit would be swapped out instead, and crawl. Absent where swap is off.
        swap = ("memory.memsw.limit_in_bytes", str(limit_bytes)) if hierarchy.version == 1 else ("memory.swap.max", "0")
        with contextlib.suppress(OSError):
            (self.path / swap[0]).open("r+").write(swap[1])

    def entering(self, command: list[str]) -> list[str]:
        """The command, run inside this cgroup from its first instruction on."""
        return ["/bin/sh", "-c", _ENTER, str(self.path / "cgroup.procs"), *command]

    def oom_kills(self) -> int:
        """Processes that the kernel has ended in this cgroup because it was over its limit."""
        return _counter(self.path / self._hierarchy.events_file, "oom_kill")

    def remove(self) -> None:
        """Remove it; its processes are gone, though the kernel may take a moment to notice."""
        _remove(self.path, _REMOVAL_SECONDS)


def find() -> Hierarchy | None:
    """Where this process may make memory cgroups; None where it may not. Leftovers of dead dequeuers are removed."""
    for hierarchy in _candidates():
        _remove_leftovers(hierarchy.base)
        if _usable(hierarchy):
            return hierarchy
    return None


def machine_oom_kills() -> int:
    """Processes that the kernel has ended anywhere on this machine because memory ran out; 0 where it does not say."""
    return _counter(Path("/proc/vmstat"), "oom_kill")


def _candidates() -> list[Hierarchy]:
    try:
        ours = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, point, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            own = next((path for _, names, path in ours if "memory" in names.split(",")), "/")
            bases = [_below(point, own), Path(point)]
            found += [Hierarchy(base, 1) for base in bases]
        elif kind == "cgroup2":
            own = next((path for number, _, path in ours if number == "0"), "/")
            base = _below(point, own)
            found += [Hierarchy(base if base == Path(point) else base.parent, 2)]
    return found


def _below(mount_point: str, path: str) -> Path:
    return Path(mount_point) / path.lstrip("/")


def _usable(hierarchy: Hierarchy) -> bool:
    """Make one, enter it, remove it."""
    try:
        if hierarchy.version == 2:
            controllers = (hierarchy.base / "cgroup.subtree_control").read_text().split()
            if "memory" not in controllers:
                return False
        trial = MemoryCgroup(hierarchy, "trial", 64 * 1024 * 1024)
    except OSError:
        return False
    try:
        return subprocess.run(trial.entering(["/bin/true"]), check=False, capture_output=True).returncode == 0
    finally:
        trial.remove()


def _remove_leftovers(base: Path) -> None:
    try:
        found = list(base.glob(f"{PREFIX}[0-9]*-*"))
    except OSError:
        return
    for path in found:
        pid = path.name.removeprefix(PREFIX).split("-", 1)[0]
        if pid == str(os.getpid()) or not Path("/proc", pid).exists():
            _remove(path, 0.0)


def _remove(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= deadline:
                return  # the next dequeuer's start removes it
            time.sleep(0.01)
        else:
            return


def _counter(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
