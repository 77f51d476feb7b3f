"""One container over all its starts: run it, and when it ends, say why and run it again after a while.

The wait after the first failure in a row is short; then it is one second and doubles to half a minute. A finished batch
resets it. A container that exits with code 0 has failed too: a worker's server is not supposed to end.
"""

import asyncio
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import Protocol

from services.common.events import wait_within
from services.dequeuer.pod.output import ContainerOutput
from services.dequeuer.ports import ContainerExit

log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 30.0
_DRAIN_SECONDS = 0.5
_MAX_QUOTE = 300


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row, at least 1."""
    if failures <= 1:
        return _FIRST_BACKOFF_SECONDS
    return float(min(_MAX_BACKOFF_SECONDS, 2 ** min(failures - 2, 10)))


class Events(Protocol):
    """What a container tells its pod."""

    def started(self, name: str) -> None:
        """It runs."""

    def exited(self, exit: ContainerExit, *, progressed: bool) -> None:  # noqa: A002  # the domain's word
        """It ended by itself, or could not be started. `progressed`: a batch was finished since its start."""

    def finished_batches(self) -> int:
        """A number that grows with every finished batch."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a start of a container ended."""

    code: int | None
    """The exit code; None when a signal ended it."""
    signal: int | None
    evidence: str = ""
    """How it is known that memory ran out, for people; empty where it did not, as far as anyone can tell."""


class Running(Protocol):
    """A start of a container, under way."""

    async def wait(self) -> Ended:
        """Return once it has ended, with everything that it started."""

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""

    def kill(self) -> None:
        """End it now."""


class CannotStart(Exception):  # noqa: N818  # what it says
    """A container was not started; says why, as the rest of a sentence about it."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.for_good = for_good
        """What is to be run is not there: trying again does not help."""


class Launcher(Protocol):
    """Knows how a container is started."""

    @property
    def name(self) -> str:
        """The container's."""

    async def launch(self, output_fd: int) -> Running:
        """Start it; it writes to `output_fd`, which stays the caller's. Raises `CannotStart`, OSError."""


class ContainerRunner:
    """Runs one container until it is told to stop."""

    def __init__(self, launcher: Launcher, output: ContainerOutput, events: Events) -> None:
        self.name = launcher.name
        self.output = output
        self._launcher = launcher
        self._events = events
        self._stopping = asyncio.Event()
        self._restart_reason = ""
        self._starts = 0
        self.tried = asyncio.Event()
        """Set when the first start has succeeded or failed."""
        self.running: Running | None = None
        self.backing_off = False
        self.cannot_start = False
        """What is to be run is not there, and never was."""
        self.reason = "is being started"
        """Why it does not run, as the rest of a sentence about it; empty when it does."""

    async def supervise(self) -> None:
        """Run it, again and again, until `stop`. Returns when its processes are gone."""
        failures = 0
        while not self._stopping.is_set():
            batches = self._events.finished_batches()
            ended = await self._run_once()
            self.tried.set()
            if self._stopping.is_set():
                return
            progressed = self._events.finished_batches() > batches
            failures = 1 if progressed else failures + 1
            self.backing_off = True
            self.reason = ended.reason
            self.output.note(f"cortex: container `{self.name}` {ended.reason}")
            self._events.exited(ended, progressed=progressed)
            # What cannot be started will not be after a while either: its job ends.
            delay = None if self.cannot_start else backoff_seconds(failures)
            await wait_within(self._stopping, delay)
            self.backing_off = False

    def stop(self) -> None:
        """Ask it to end, and not to be started again."""
        self._stopping.set()
        if self.running is not None:
            self.running.terminate()

    def kill(self) -> None:
        """End it at once, and do not start it again."""
        self._stopping.set()
        if self.running is not None:
            self.running.kill()

    def restart(self, reason: str, grace_seconds: float) -> None:
        """End its process, politely first, so that it is started again."""
        running = self.running
        if running is None or self._restart_reason:
            return
        self._restart_reason = reason
        running.terminate()
        asyncio.get_running_loop().call_later(grace_seconds, running.kill)

    async def _run_once(self) -> ContainerExit:
        self._restart_reason = ""
        if self._starts:
            self.output.note(f"cortex: container `{self.name}` is started again (start {self._starts + 1})")
        try:
            running = await self._launch()
        except CannotStart as error:
            self.cannot_start = error.for_good and not self._starts
            await asyncio.to_thread(self.output.drain, _DRAIN_SECONDS)
            return self._not_started(error.reason)  # what it wrote last was an earlier start's, or says the same
        except OSError as error:
            return self._not_started(f"could not be started: {error}")
        self._starts += 1
        began = time.monotonic()
        self.running = running
        self.reason = ""
        if self._stopping.is_set():
            running.terminate()
        else:
            self._events.started(self.name)
        self.tried.set()
        try:
            ended = await running.wait()
        finally:
            self.running = None
        await asyncio.to_thread(self.output.drain, _DRAIN_SECONDS)
        reason = self._explain(ended, time.monotonic() - began)
        return ContainerExit(self.name, ended.code, ended.signal, out_of_memory=bool(ended.evidence), reason=reason)

    async def _launch(self) -> Running:
        output_fd = self.output.open_pipe()
        try:
            return await self._launcher.launch(output_fd)
        finally:
            os.close(output_fd)

    def _not_started(self, reason: str) -> ContainerExit:
        return ContainerExit(self.name, None, None, out_of_memory=False, reason=reason)

    def _explain(self, ended: Ended, seconds: float) -> str:
        if ended.evidence:
            return ended.evidence
        code, number = ended.code, ended.signal
        if self._restart_reason:
            return f"was ended: {self._restart_reason}"
        after = f"after {seconds:.1f} s"
        if number is not None:
            what = f"was ended by signal {number} ({_signal_name(number)}) {after}"
        elif code == 0:
            what = f"exited with code 0 {after}, though it is a server and is not supposed to end"
        else:
            what = f"exited with code {code} {after}"
        return self._with_last_output(what)

    def _with_last_output(self, what: str) -> str:
        last = next((line for line in reversed(self.output.tail()) if line.strip()), "")
        return f"{what}; last output: {last.strip()[:_MAX_QUOTE]}" if last else what


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
