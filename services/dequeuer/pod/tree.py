"""Process trees, from Linux's /proc. Elsewhere there are no descendants to be found."""

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


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
