"""One container over all its starts: run it, and when it ends, say why and run it again after a while.

The wait after the first failure in a row is short; then it is one second and doubles to half a minute. A finished batch
resets it. A container that exits with code 0 has failed too: a worker's server is not supposed to end.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.dequeuer.pod.environment import Filled, check_arguments
from services.dequeuer.pod.memory import MemoryGuard
from services.dequeuer.pod.output import ContainerOutput
from services.dequeuer.pod.process import ContainerProcess, launch, why_not_startable
from services.dequeuer.pod.sandbox import Sandbox
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
class Plan:
    """How to run a container."""

    name: str
    filled: Filled
    working_directory: str
    sandbox: Sandbox | None
    guard: Callable[[], MemoryGuard]
    output: ContainerOutput


class ContainerRunner:
    """Runs one container until it is told to stop."""

    def __init__(self, plan: Plan, events: Events) -> None:
        self._plan = plan
        self._events = events
        self._stopping = asyncio.Event()
        self._restart_reason = ""
        self._starts = 0
        self.tried = asyncio.Event()
        """Set when the first start has succeeded or failed."""
        self.process: ContainerProcess | None = None
        self.backing_off = False
        self.cannot_start = False
        """What is to be run is not there, and never was."""
        self.reason = "is being started"
        """Why it does not run, as the rest of a sentence about it; empty when it does."""

    @property
    def plan(self) -> Plan:
        """How it is run."""
        return self._plan

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
            self._plan.output.note(f"cortex: container `{self._plan.name}` {ended.reason}")
            self._events.exited(ended, progressed=progressed)
            # What cannot be started will not be after a while either: its job ends.
            delay = None if self.cannot_start else backoff_seconds(failures)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            self.backing_off = False

    def stop(self) -> None:
        """Ask it to end, and not to be started again."""
        self._stopping.set()
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """End it at once, and do not start it again."""
        self._stopping.set()
        if self.process is not None:
            self.process.kill()

    def restart(self, reason: str, grace_seconds: float) -> None:
        """End its process, politely first, so that it is started again."""
        process = self.process
        if process is None or self._restart_reason:
            return
        self._restart_reason = reason
        process.terminate()
        asyncio.get_running_loop().call_later(grace_seconds, process.kill)

    async def _run_once(self) -> ContainerExit:
        plan = self._plan
        command = list(plan.filled.command)
        hidden = plan.sandbox is not None and bool(command) and plan.sandbox.hides(command[0])
        variables = plan.filled.variables
        refused = why_not_startable(command, variables, plan.working_directory, hidden)
        if refused := refused or check_arguments(command, variables):
            self.cannot_start = self._starts == 0
            return ContainerExit(plan.name, None, None, out_of_memory=False, reason=refused)
        guard = plan.guard()
        try:
            return await self._run_process(command, guard)
        except OSError as error:
            reason = f"could not be started: {error}"
            return ContainerExit(plan.name, None, None, out_of_memory=False, reason=reason)
        finally:
            guard.close()

    async def _run_process(self, command: list[str], guard: MemoryGuard) -> ContainerExit:
        plan = self._plan
        self._restart_reason = ""
        if self._starts:
            plan.output.note(f"cortex: container `{plan.name}` is started again (start {self._starts + 1})")
        self._starts += 1
        output_fd = plan.output.open_pipe()
        try:
            process = await launch(
                command, plan.filled.variables, plan.working_directory, plan.sandbox, guard, output_fd
            )
        finally:
            os.close(output_fd)
        began = time.monotonic()
        self.process = process
        self.reason = ""
        if self._stopping.is_set():
            process.terminate()
        else:
            self._events.started(plan.name)
        self.tried.set()
        watch = asyncio.create_task(guard.watch(process.pid, process.kill), name=f"memory of {plan.name}")
        try:
            code, number = await process.wait()
        finally:
            watch.cancel()
            self.process = None
        await asyncio.to_thread(plan.output.drain, _DRAIN_SECONDS)
        evidence = guard.evidence(number)
        reason = self._explain(code, number, time.monotonic() - began, evidence)
        return ContainerExit(plan.name, code, number, out_of_memory=bool(evidence), reason=reason)

    def _explain(self, code: int | None, number: int | None, seconds: float, evidence: str) -> str:
        if evidence:
            return evidence
        if self._restart_reason:
            return f"was ended: {self._restart_reason}"
        after = f"after {seconds:.1f} s"
        if number is not None:
            what = f"was ended by signal {number} ({_signal_name(number)}) {after}"
        elif code == 0:
            what = f"exited with code 0 {after}, though it is a server and is not supposed to end"
        else:
            what = f"exited with code {code} {after}"
        last = next((line for line in reversed(self._plan.output.tail()) if line.strip()), "")
        return f"{what}; last output: {last.strip()[:_MAX_QUOTE]}" if last else what


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
