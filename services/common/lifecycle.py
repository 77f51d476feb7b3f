"""How every service process lives and ends.

`run` gives the service's main coroutine an event that is set when the process is to stop: on SIGTERM or SIGINT, or
when the lifeline breaks. The lifeline is a pipe whose other end only `cortex up` holds, so that nothing outlives it,
not even after kill -9. A second signal ends the process at once.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import uvloop

from services.common.errors import CortexError

log = logging.getLogger(__name__)

LIFELINE_VARIABLE = "CORTEX_LIFELINE_FD"
"""Environment variable with the lifeline's file descriptor."""


class Stop(asyncio.Event):
    """Set when the process is to stop. `at_once` says that nobody is left to wait for a clean end."""

    at_once = False


def run(main: Callable[[Stop], Awaitable[None]], lifeline_fd: int | None, *, for_throughput: bool = False) -> int:
    """Run a service until it ends; return its exit code. A `CortexError` ends it with one clear sentence.

    `for_throughput`: for a process that every batch passes through; see `_tune`. Import what it needs before.
    """
    if for_throughput:
        _tune()

    async def supervised() -> None:
        stop = Stop()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop, number)
        if lifeline_fd is not None:
            os.set_blocking(lifeline_fd, False)
            loop.add_reader(lifeline_fd, _on_lifeline, stop, lifeline_fd, loop)
        await main(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(supervised())
    except CortexError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # this is the process's last word
        return 1
    return 0


def end_at_once(reason: str) -> NoReturn:
    """End this process now, in the middle of whatever it does: it must not write, say or start anything more."""
    log.critical("ending at once: %s", reason)
    os._exit(1)


def _tune() -> None:
    """Trade a little promptness for throughput; what is started from here is not affected.

    As a batch process it does not push the container that it has just written to off its core for every answer: that
    alone is a fifth of the throughput on a small machine. And what was imported is never garbage, so the collector
    need not look at it again and again.
    """
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _on_signal(stop: Stop, number: int) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()


def _on_lifeline(stop: Stop, fd: int, loop: asyncio.AbstractEventLoop) -> None:
    if os.read(fd, 1) == b"":
        loop.remove_reader(fd)
        log.warning("the system that started this process is gone; ending")
        stop.at_once = True
        stop.set()
