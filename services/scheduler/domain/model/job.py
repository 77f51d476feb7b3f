"""A job: what was submitted, where it is in its life, and its counts."""

from dataclasses import dataclass, field
from enum import Enum

from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.model.item_stream import Source
from services.scheduler.domain.model.options import DeadLetterQueue, Options, Results

BUCKET_BOUNDS_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Upper bounds of the histogram of batch durations; one more bucket takes what is longer."""


class JobStatus(Enum):
    """What became of a job; the values are what people read."""

    PENDING = "pending"
    ENQUEUING = "enqueuing"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    ENQUEUE_FAILED = "enqueue_failed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    WORKER_ERROR = "worker_error"
    WORKER_OOM = "worker_oom"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    UNEXPECTED_ERROR = "unexpected_error"

    @property
    def final(self) -> bool:
        """True when nothing about the job will change any more."""
        return self not in (JobStatus.PENDING, JobStatus.ENQUEUING, JobStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What was submitted. Never changes."""

    job_id: str
    api_name: str
    api_id: str
    workers: int
    batch_size: int
    config_json: str
    """The submission's `config`, byte for byte; `""` when not given."""
    timeout_seconds: int | None
    batch_timeout_seconds: int | None
    dead_letter_queue: DeadLetterQueue | None
    created_ns: int
    traceparent: str
    """W3C context under which all of the job's spans stand."""
    retry_of: str = ""
    """The job whose failed batches are this one's input; `""` for none."""
    options: Options = field(default_factory=Options)
    source: Source | None = None
    """None: the items came with the submission, or are another job's failed batches."""

    @property
    def published(self) -> Results | None:
        """The results, when they are written to a store before the job is over."""
        results = self.options.results
        return results if results is not None and results.s3_path else None


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Makes repeating a submission safe: the same key gives the same job."""

    request_id: str
    """Chosen by the client, for one API."""
    digest: bytes
    """Of all that was asked for, so that another request under the same id is an error and not lost."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the container answered to /on-job-complete. `error` is empty when that was fine."""

    http_status: int
    error: str


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is in its life. Changes by `lifecycle.advance` alone."""

    status: JobStatus = JobStatus.PENDING
    reason: str = ""
    completion: Completion | None = None
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a job: batches that are final, and attempts."""

    batches_succeeded: int = 0
    batches_failed: int = 0
    batches_split: int = 0
    """Halved because they kept failing: their halves count, they do not."""
    attempts_succeeded: int = 0
    attempts_failed: int = 0
    succeeded_seconds: float = 0.0
    """Duration of the successful attempts, summed."""
    buckets: tuple[int, ...] = (0,) * (len(BUCKET_BOUNDS_SECONDS) + 1)
    """Successful attempts by duration, not cumulative."""

    @property
    def batches_final(self) -> int:
        """Batches that succeeded or failed."""
        return self.batches_succeeded + self.batches_failed


@dataclass(frozen=True, slots=True)
class Control:
    """What was changed while the job ran."""

    workers: int | None = None
    """None: as it was submitted."""
    paused: bool = False
    """No batches are given out."""


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How telling a job's receiver of its end stands."""

    attempts: int = 0
    due_ns: int | None = None
    """When the next attempt is due; None for never."""
    delivered_ns: int | None = None
    error: str = ""
    """Why the last attempt failed, for people; `""` when it did not."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything the ledger knows of a job, its batches apart."""

    spec: JobSpec
    state: JobState
    tally: Tally
    cursor: Cursor
    low_water: int
    """Every batch below this index is final."""
    retried_by: str = ""
    """The latest job that runs this one's failed batches again; `""` for none."""
    control: Control = Control()
    webhook: WebhookStatus | None = None
    """None: nobody is to be told, or the job is not over."""

    @property
    def known_batches(self) -> int:
        """Batches that there are so far; those that were halved do not count."""
        return self.cursor.next_index - self.tally.batches_split

    @property
    def total_batches(self) -> int | None:
        """Batches in the whole job; known once its input is split to the end. It grows when a batch is halved."""
        return total_batches(self.cursor, self.tally)

    @property
    def workers(self) -> int:
        """Workers that the job is to have."""
        if self.control.workers is not None:
            return self.control.workers
        scaling = self.spec.options.scaling
        return self.spec.workers if scaling is None else scaling.workers(self.known_batches)


def total_batches(cursor: Cursor, tally: Tally) -> int | None:
    """See `JobRecord`."""
    return cursor.next_index - tally.batches_split if cursor.done else None
