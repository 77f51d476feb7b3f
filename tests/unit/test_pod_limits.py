"""Backoff, sizes, and cgroups of both versions as files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.dequeuer.pod import cgroups
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
def test_a_memory_cgroup_in_either_version(
    tmp_path: Path, version: int, limit_file: str, events_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = MemoryCgroup(Hierarchy(tmp_path, version), "api", 1 << 20)
    assert (group.path / limit_file).read_text() == str(1 << 20)
    assert group.path.name == f"cortex-{os.getpid()}-api"
    guard = MemoryGuard(1 << 20, group)
    entered = subprocess.run(guard.wrap(["/bin/sh", "-c", "echo in"]), capture_output=True, text=True, check=True)
    assert entered.stdout == "in\n"
    assert (group.path / "cgroup.procs").read_text().strip().isdigit()
    assert guard.evidence(9) == ""
    monkeypatch.setattr(cgroups, "machine_oom_kills", lambda: 10**9)
    assert guard.evidence(9) == "", "somebody else's end is no evidence where the kernel counts ours"
    (group.path / events_file).write_text("oom 3\noom_kill 1\n")
    assert guard.evidence(9) == "used more memory than its limit (compute.mem 1Mi)"
    shutil.rmtree(group.path)


def test_without_a_cgroup_the_machines_count_is_evidence_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = 3
    monkeypatch.setattr(cgroups, "machine_oom_kills", lambda: kills)
    guard = MemoryGuard(None, None)
    assert guard.evidence(9) == ""
    kills = 4
    guard.look()
    assert guard.evidence(9) == "was ended by the kernel because the machine ran out of memory"
    assert guard.evidence(15) == ""
    for _ in range(20):
        guard.look()
    assert guard.evidence(9) == ""
