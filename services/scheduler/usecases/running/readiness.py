"""No job waits for ever: a deadline runs whenever nobody is ready who could bring it forward.

That is any worker or, once one was asked for /on-job-complete, that one. It does not run while all workers wait for
their turn at something that other jobs' workers have.
"""

import asyncio
from collections.abc import Callable, Mapping

from services.scheduler.domain.model.job import JobStatus
from services.scheduler.domain.model.worker import Phase
from services.scheduler.usecases.running.worker import Worker

REASONS_TOLD = 3
"""Of many workers with a reason each, so many are named."""
TROUBLE_SECONDS = 3.0
"""No worker ready for so long is told to those who look at the job; most containers are ready sooner."""


class Readiness:
    """Watches over one job's workers."""

    def __init__(
        self,
        members: Mapping[str, Worker],
        deadline_seconds: float,
        on_trouble: Callable[[], None],
        on_hopeless: Callable[[JobStatus, str], None],
    ) -> None:
        self._members = members
        self._deadline_seconds = deadline_seconds
        self._on_trouble = on_trouble
        self._on_hopeless = on_hopeless
        self._deadline: asyncio.TimerHandle | None = None
        self._notice: asyncio.TimerHandle | None = None
        self._was_ready = False
        self._last_failure = ""
        self._stopped = False
        self.needed: str | None = None
        """The worker that all depends on; None: any will do."""

    def need(self, worker_id: str | None) -> None:
        """All depends on this worker now; None: any will do."""
        if worker_id != self.needed:
            self.needed = worker_id
            self.look()

    def failed(self, reason: str) -> None:
        """A worker is gone."""
        self._last_failure = reason
        self.look()

    def stop(self) -> None:
        """The job needs no worker any more."""
        self._stopped = True
        self.look()

    def look(self) -> None:
        """Something about the workers changed: arm the deadline, or let it go."""
        ready = [worker.id for worker in self._members.values() if worker.health.phase is Phase.READY]
        queued = bool(self._members) and all(worker.health.queued for worker in self._members.values())
        self._was_ready |= bool(ready)
        if self._stopped or (ready if self.needed is None else self.needed in ready):
            self._stop_deadline()
            if self._notice is not None:
                self._notice.cancel()
                self._notice = None
            return
        loop = asyncio.get_running_loop()
        if self._notice is None:
            self._notice = loop.call_later(TROUBLE_SECONDS, self._on_trouble)
        if queued:  # behind other jobs, which have a deadline of their own
            self._stop_deadline()
        elif self._deadline is None:
            self._deadline = loop.call_later(self._deadline_seconds, self._too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def trouble(self) -> str:
        """Why nobody is ready who could bring the job forward, for people; empty while there is no need to ask."""
        if self._notice is None or asyncio.get_running_loop().time() < self._notice.when():
            return ""
        what = "no worker is ready"
        if (needed := self._members.get(self.needed or "")) is not None:
            what = f"worker {needed.record.slot}, which is asked for /on-job-complete, is not ready"
        return what + self._because()

    def _too_late(self) -> None:
        what = "no worker became ready within" if not self._was_ready else "no worker was ready any more for"
        if (needed := self._members.get(self.needed or "")) is not None:
            what = f"worker {needed.record.slot}, which was asked for /on-job-complete, was not ready for"
        self._on_hopeless(JobStatus.WORKER_ERROR, f"{what} {self._deadline_seconds:g} s{self._because()}")

    def _because(self) -> str:
        reasons = sorted({worker.health.reason for worker in self._members.values()} - {""}) or [self._last_failure]
        more = f"; and {len(reasons) - REASONS_TOLD} more" if len(reasons) > REASONS_TOLD else ""
        why = "; ".join(reasons[:REASONS_TOLD]) + more
        return f": {why}" if why else ""
