"""A job as its clients see it."""

from dataclasses import dataclass

from services.scheduler.domain.model.job import JobRecord
from services.scheduler.usecases.running.progress import Progress


@dataclass(frozen=True, slots=True)
class JobView:
    """What the ledger holds of a job and, of one at work, what only its run knows."""

    job: JobRecord
    leased: int = 0
    """Batches in workers' hands, or whose outcome is not on disk yet."""
    workers: dict[str, int] | None = None
    """By state; None once the job is over."""
    trouble: str = ""
    """What holds it up just now, for people; empty when all is well."""
    progress: Progress | None = None
    """None once the job is over."""

    @property
    def pending(self) -> int:
        """Batches that wait for a worker."""
        return max(0, self.job.known_batches - self.job.tally.batches_final - self.leased)
