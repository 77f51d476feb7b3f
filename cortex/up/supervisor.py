"""Keeps the parts running until the system is told to stop, then ends them in order.

A part's life:

    start -> running --(ends)--> report, wait a little if it died young, start again
                |
                '--(stop)--> SIGTERM, its grace, later SIGKILL

One part dying never stops another: the gateway lives on without a scheduler and says so, and workers go on
without either. Only at the very start `cortex up` gives up: when a part ends with an error of its own telling (`error:
...`, exit code 1, or 2 for a wrong setting), which no restart mends, or dies young five times in a row.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

from cortex.up.errors import UpError
from cortex.up.part_log import PartLog
from cortex.up.plan import Part, Plan
from cortex.up.processes import Nursery, become_subreaper, end_descendants
from cortex.up.readiness import until_ready

LIFELINE_VARIABLE = "CORTEX_LIFELINE_FD"

DRAIN_S = 10.0
"""From the signal to the end, at most."""

YOUNG_S = 1.0
"""A part that lives for less than this is restarted with growing pauses."""

PAUSES_S = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Before the restart after the first, second, ... young death in a row. Restarts stay within two seconds."""

GIVE_UP_AFTER = 5
"""Young deaths in a row, before the system has ever been ready."""


class Supervisor:
    """Runs a plan. `say` shows a line to the person at the terminal."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._lifeline_fd, self._lifeline_end = os.pipe()
        self._phase = _Phase()
        self._parts = [
            _RunningPart(part, PartLog(part.name, plan.log_directory, say), self._phase, self._lifeline_fd, say)
            for part in plan.parts
        ]

    async def run(self, on_ready: Callable[[], None], on_stopping: Callable[[], None] = lambda: None) -> bool:
        """Start everything, and return when all has ended after a signal. Calls back when ready, and when it stops.

        True when the parts were given the time to end well; False when a second signal cut that short. Raises
        `UpError` when the system cannot be started.
        """
        become_subreaper()
        loop = asyncio.get_running_loop()
        nursery = Nursery()
        nursery.install()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started with nohup: it is to outlive its terminal
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(part.keep_running(nursery), name=part.name) for part in self._parts]
                readiness = group.create_task(self._announce(on_ready), name="readiness")
                await self._phase.stopping.wait()
                readiness.cancel()
                on_stopping()
                await self._drain()
                for keeper in keepers:
                    keeper.cancel()
        except* UpError as failures:
            raise failures.exceptions[0] from None
        finally:
            for part in self._parts:
                part.close_log()
            os.close(self._lifeline_end)  # every process that is left sees the end of file
            loop.remove_signal_handler(signal.SIGCHLD)
            end_descendants(at_once=self._phase.at_once.is_set())
            os.close(self._lifeline_fd)
        return not self._phase.at_once.is_set()

    def _on_signal(self) -> None:
        if self._phase.stopping.is_set():
            self._phase.at_once.set()
        self._phase.stopping.set()

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        await until_ready(self._plan.ready_when)
        self._phase.was_ready.set()
        on_ready()

    async def _drain(self) -> None:
        self._say(f"stopping: workers finish or hand back what they hold ({DRAIN_S:.0f} s at most; again: at once)")
        at_once = asyncio.create_task(self._phase.at_once.wait())
        try:
            async with asyncio.timeout(DRAIN_S):
                for part in self._parts:
                    part.terminate()
                    await asyncio.wait((part.ended, at_once), timeout=part.grace_s, return_when=asyncio.FIRST_COMPLETED)
                    if at_once.done():
                        return
                await asyncio.wait([part.ended for part in self._parts])
        except TimeoutError:
            late = ", ".join(part.name for part in self._parts if not part.ended.done())
            self._say(f"still running after {DRAIN_S:.0f} s, ended now: {late}")
        finally:
            at_once.cancel()


class _Phase:
    """How far the system is in its life."""

    def __init__(self) -> None:
        self.was_ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self.at_once = asyncio.Event()
        """Asked to stop a second time: nobody waits for anything any more."""


class _RunningPart:
    """One part over all of its restarts."""

    def __init__(self, part: Part, log: PartLog, phase: _Phase, lifeline_fd: int, say: Callable[[str], None]) -> None:
        self.name = part.name
        self.grace_s = part.stop_grace_s
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The end of the process that runs now."""
        self._pid = 0
        self._part = part
        self._log = log
        self._phase = phase
        self._lifeline_fd = lifeline_fd
        self._say = say

    async def keep_running(self, nursery: Nursery) -> None:
        """Start the part, and again whenever it ends, until it is stopped. Raises `UpError` to give up."""
        young_deaths = 0
        while not self._phase.stopping.is_set():
            started = time.monotonic()
            self._start(nursery)
            code = await self.ended
            self._log.catch_up()
            if self._phase.stopping.is_set():
                return
            young_deaths = young_deaths + 1 if time.monotonic() - started < YOUNG_S else 0
            reason = how_it_ended(code, self._log.last_line)
            if not self._phase.was_ready.is_set():
                self._give_up_if_hopeless(code, young_deaths, reason)
            self._say(f"{self.name} {reason}; starting it again")
            await asyncio.sleep(PAUSES_S[min(max(young_deaths - 1, 0), len(PAUSES_S) - 1)])

    def terminate(self) -> None:
        """Ask the part to end."""
        if not self.ended.done() and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def close_log(self) -> None:
        """Take no more of what the part writes."""
        self._log.close()

    def _start(self, nursery: Nursery) -> None:
        self._log.last_line = ""
        environment = os.environ | self._part.environment | {LIFELINE_VARIABLE: str(self._lifeline_fd)}
        output_fd = self._log.open_pipe()
        try:
            fds = (self._lifeline_fd, *self._part.fds)
            self._pid, self.ended = nursery.start(self._part.command, environment, fds, output_fd)
        except OSError as error:
            raise UpError(f"cannot start {self.name} ({self._part.command[0]}): {error.strerror}") from error
        finally:
            os.close(output_fd)

    def _give_up_if_hopeless(self, code: int, young_deaths: int, reason: str) -> None:
        told = self._log.last_line.removeprefix("error: ")
        if code in (1, 2) and told != self._log.last_line:
            raise UpError(f"{self.name}: {told}")
        if young_deaths >= GIVE_UP_AFTER:
            raise UpError(
                f"{self.name} cannot be started: it {reason}, {young_deaths} times in a row; see {self._log.path}"
            )


def how_it_ended(code: int, last_line: str) -> str:
    """Such as `exited with code 1: MemoryError` or `was ended by SIGKILL`."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was ended by {name}"
    return f"exited with code {code}" + (f": {last_line}" if last_line and code != 0 else "")
