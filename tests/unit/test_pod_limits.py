"""Backoff, sizes, and cgroups of both versions as files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.dequeuer.pod.cgroups import Hierarchy, MemoryCgroup
from services.dequeuer.pod.container import backoff_seconds
from services.dequeuer.pod.memory import MemoryGuard, human_bytes


def test_backoff_is_short_once_then_doubles_to_half_a_minute() -> None:
    assert [backoff_seconds(failures) for failures in range(1, 10)] == [0.2, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff_seconds(10_000) == 30


@pytest.mark.parametrize(
    ("number", "text"), [(512 << 20, "512Mi"), (3 << 29, "1.5Gi"), (1000, "1000"), (20_000_000, "19.07Mi")]
)
def test_sizes_are_written_as_quantities(number: int, text: str) -> None:
    assert human_bytes(number) == text


@pytest.mark.parametrize(
    ("version", "limit_file", "events_file"),
    [(1, "memory.limit_in_bytes", "memory.oom_control"), (2, "memory.max", "memory.events")],
)
def test_a_memory_cgroup_in_either_version(tmp_path: Path, version: int, limit_file: str, events_file: str) -> None:
    group = MemoryCgroup(Hierarchy(tmp_path, version), "api", 1 << 20)
    assert (group.path / limit_file).read_text() == str(1 << 20)
    assert group.path.name == f"cortex-{os.getpid()}-api"
    guard = MemoryGuard(1 << 20, group)
    entered = subprocess.run(guard.wrap(["/bin/sh", "-c", "echo in"]), capture_output=True, text=True, check=True)
    assert entered.stdout == "in\n"
    assert (group.path / "cgroup.procs").read_text().strip().isdigit()
    assert guard.evidence(9) == ""
    (group.path / events_file).write_text("oom 3\noom_kill 1\n")
    assert guard.evidence(9) == "used more memory than its limit (compute.mem 1Mi)"
    shutil.rmtree(group.path)
