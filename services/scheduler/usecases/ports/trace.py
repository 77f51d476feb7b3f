"""The spans of a job."""

from typing import Protocol

from services.scheduler.domain.leases import Lease
from services.scheduler.domain.model.job import JobState, Tally
from services.scheduler.domain.model.worker import WorkerRecord


class JobTrace(Protocol):
    """The spans of one job. Losing them loses nothing else."""

    def accepted(self, batches: int) -> None:
        """The submission was checked, split (as far as it is) and stored."""

    def batch_leased(self, lease: Lease) -> str:
        """A batch goes out; the traceparent that goes with it."""

    def batch_answered(self, index: int) -> None:
        """A worker told how an attempt ended."""

    def batch_settled(self, index: int, error: str) -> None:
        """A batch's attempt is over and, if it was the last, recorded."""

    def worker_starting(self, worker: WorkerRecord) -> None:
        """A worker is being started."""

    def worker_ready(self, worker: WorkerRecord) -> None:
        """A worker takes batches, for the first time or again."""

    def worker_lost(self, worker: WorkerRecord, reason: str) -> None:
        """A worker is gone while the job goes on."""

    def job_complete(self) -> str:
        """/on-job-complete is due; the traceparent that goes with it."""

    def finished(self, state: JobState, tally: Tally) -> None:
        """The job is over."""
