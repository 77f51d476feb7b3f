"""Waiting for facts about other processes, which send no events, and for their ends, which are events."""

import os
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

import psutil

SECONDS = 30.0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What the condition gives, once that is true: looks every few milliseconds, up to a deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


def gone_within(pid: int, seconds: float) -> bool:
    """Whether a process ends in time. One that has ended is gone, although its parent may be slow to reap it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def left_after(seconds: float, processes: Iterable[psutil.Process]) -> list[str]:
    """Those of the processes that have not ended after so long, for people."""
    deadline = time.monotonic() + seconds
    return [
        _described(process)
        for process in processes
        if process.is_running() and not gone_within(process.pid, max(0.0, deadline - time.monotonic()))
    ]


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error as error:
        return str(error)
