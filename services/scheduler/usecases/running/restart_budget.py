"""How often a job's workers may fail: five times in a row without a finished batch, and the job is given up.

Counted are, for each slot, the dequeuers that ended, and for each worker the starts of its containers. What is nobody's
failure is not counted: a disruption, a full disk, a cluster that does not answer.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from services.scheduler.domain.model.job import JobStatus
from services.scheduler.domain.model.worker import End, Health
from services.scheduler.usecases.ports.workers import WorkerExit
from services.scheduler.usecases.running.worker import Worker

MAX_FAILED_STARTS = 5
"""In a row, without a finished batch, until a worker counts as hopeless."""
MAX_EXCUSES = 4
"""In a row, without a finished batch, until a halved batch excuses its workers' failures no more."""
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)


class RestartBudget:
    """The failures of one job's workers."""

    def __init__(self, members: Mapping[str, Worker], on_hopeless: Callable[[JobStatus, str], None]) -> None:
        self._members = members
        self._on_hopeless = on_hopeless
        self._failed_starts: Counter[int] = Counter()  # by slot: dequeuers in a row that ended without a batch
        self._excuses = 0  # in a row

    def delivered(self, worker: Worker) -> None:
        """A worker finished a batch: its budget is given back."""
        self._excuses = 0
        if not worker.delivered:
            worker.delivered = True
            self.forgive(worker.record.slot)

    def forgive(self, slot: int) -> None:
        """The failures of a slot's workers count no more."""
        self._failed_starts.pop(slot, None)

    def excuse(self) -> None:
        """A batch was halved, maybe because it kills containers: these failures are not the workers'.

        Where nothing is ever finished in between, the containers are to blame after all.
        """
        if self._excuses < MAX_EXCUSES:
            self._excuses += 1
            self._failed_starts.clear()
            for worker in self._members.values():
                worker.excused = worker.health.failed_starts

    def judge(self, worker: Worker, health: Health) -> None:
        """A worker's containers are like this now."""
        worker.excused = min(worker.excused, health.failed_starts)
        failed = health.failed_starts - worker.excused
        if health.cannot_start:
            self._on_hopeless(JobStatus.WORKER_ERROR, f"worker {worker.record.slot}: {health.reason}")
        elif failed >= MAX_FAILED_STARTS:
            self._give_up(worker.record.slot, failed, health.reason, out_of_memory=health.out_of_memory)

    def ended(self, worker: Worker, exit_: WorkerExit) -> float | None:
        """A worker ended; the seconds until another one is put in its place, or None when that is hopeless."""
        slot = worker.record.slot
        if not worker.delivered and not exit_.blameless:
            self._failed_starts[slot] += 1
        failed = self._failed_starts[slot]
        if failed >= MAX_FAILED_STARTS:
            self._give_up(slot, failed, exit_.reason, out_of_memory=exit_.end is End.KILLED_OOM)
            return None
        return BACKOFF_SECONDS[min(max(failed - 1, 0), len(BACKOFF_SECONDS) - 1)]

    def _give_up(self, slot: int, failed: int, reason: str, *, out_of_memory: bool) -> None:
        status = JobStatus.WORKER_OOM if out_of_memory else JobStatus.WORKER_ERROR
        self._on_hopeless(status, f"worker {slot} failed {failed} times in a row without finishing a batch: {reason}")
