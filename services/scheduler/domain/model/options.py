"""What a submission may ask for besides its items."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """Where failing batches go."""

    arn: str
    max_receive_count: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How batches that fail are attempted again."""

    max_attempts: int
    """Attempts in all, at least 1."""
    backoff_seconds: float
    """Before the second attempt; doubled before each further one."""
    max_backoff_seconds: float
    on: tuple[int, ...] = ()
    """Statuses that are worth another attempt; none for all. An attempt without an answer always is."""


@dataclass(frozen=True, slots=True)
class Results:
    """The containers' replies are kept."""

    s3_path: str = ""
    """Where they are written as well before the job is over; `""` for nowhere else."""

    def below(self, name: str) -> str:
        """The URI of something at that place."""
        return f"{self.s3_path}{name}" if self.s3_path.endswith("/") else f"{self.s3_path}/{name}"


@dataclass(frozen=True, slots=True)
class WorkerScaling:
    """The number of workers follows from the number of batches."""

    batches_per_worker: int
    max_workers: int

    def workers(self, batches: int) -> int:
        """How many workers so many batches need."""
        return max(1, min(self.max_workers, -(-batches // self.batches_per_worker)))


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell of the job's end."""

    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Options:
    """What a submission asks for beyond Cortex. The defaults are what Cortex did."""

    retries: RetryPolicy | None = None
    split_failed: bool = False
    """Halve a batch that keeps failing, until the bad items are alone."""
    results: Results | None = None
    scaling: WorkerScaling | None = None
    max_failed_percent: float | None = None
    """More failed batches than this stop the job."""
    webhook: Webhook | None = None
    queue_name: str = ""
    """The Kueue queue that the job waits in, instead of its API's; `""`: not given."""
