"""Ending a process tree, with real processes."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from services.dequeuer.pod.tree import descendants, kill_descendants

NESTED = "sh -c 'sh -c \"sleep 1000 & wait\" & wait' & wait"


@pytest.fixture
def shell() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sh", "-c", NESTED], start_new_session=True) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):  # as it should be
            os.killpg(process.pid, signal.SIGKILL)


def test_nobody_escapes_by_the_end_of_a_parent(
    shell: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.monotonic() + 10
    while len(found := [psutil.Process(pid) for pid in descendants(shell.pid)]) < 3:
        assert time.monotonic() < deadline
    kill = os.kill

    def kill_and_wait(pid: int, number: int) -> None:
        """So that each has ended, and given its children away, before the next is looked at."""
        kill(pid, number)
        if number == signal.SIGKILL:
            psutil.wait_procs([process for process in found if process.pid == pid], timeout=0.2)

    monkeypatch.setattr(os, "kill", kill_and_wait)
    kill_descendants(shell.pid)
    _, alive = psutil.wait_procs(found, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
