"""A process's memory. Imports nothing, because it is measured itself."""

from pathlib import Path


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes now and at most, as the kernel keeps them (`ru_maxrss` would count the parent's at the start)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmRSS", "VmHWM")
    }
    return found.get("VmRSS", 0), found.get("VmHWM", 0)
