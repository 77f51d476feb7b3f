"""A container engine at the two ends of `cortex up`: is it there, and is nothing left.

The system removes its containers by itself. What a crash of the whole system left, with nobody to see it, is removed at
the next start; what an end at once has cut off, at that end.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cortex.up.errors import UpError

ENGINES = ("podman", "docker")

_LABEL = "cortex.system"
"""Carried by every container of a system, with its data directory; as in `services.common.engine`."""

_PATIENCE_S = 60


def check(program: str) -> None:
    """Raises `UpError` when this machine cannot run containers with this engine."""
    if shutil.which(program) is None:
        raise UpError(f"--runtime {program}: the program `{program}` is not installed")
    if os.geteuid() != 0:
        raise UpError(
            f"--runtime {program} needs root: a worker's containers share a network that only root may make and join. "
            "Run `cortex up` as root, or without --runtime"
        )
    told = _run([program, "version"])
    if told.returncode != 0:
        words = told.stderr.strip().splitlines() or ["it does not say why"]
        raise UpError(f"--runtime {program}: {program} does not work here: {words[-1]}")


def sweep(program: str, data: Path) -> None:
    """Remove all containers of the system with this data directory."""
    found = _run([program, "ps", "--all", "--quiet", "--filter", f"label={_LABEL}={data}"]).stdout.split()
    if found:
        _run([program, "rm", "--force", *found])


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UpError(f"{command[0]} does not answer: {error}") from error
