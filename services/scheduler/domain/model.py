"""The values that the scheduler is about: APIs, jobs, segments of batches, outcomes.

All are immutable. Times are integers: nanoseconds since 1970 (`_ns`).

A job's input is one string of bytes, the *item stream*: every item's raw JSON followed by a comma. A batch is a range
of it, so that items are written once and the ledger holds a few bytes a batch. A `Segment` describes consecutive
batches.
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum

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
class ApiVersion:
    """One version of a deployed API."""

    name: str
    api_id: str
    endpoint: str
    spec_json: str
    """The configuration with its defaults and the ids derived from it, as a JSON object."""
    deployed_ns: int


@dataclass(frozen=True, slots=True)
class DeadLetterQueue:
    """Where failing batches go."""

    arn: str
    max_receive_count: int


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


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Makes repeating a submission safe: the same key gives the same job."""

    request_id: str
    """Chosen by the client, for one API."""
    digest: bytes
    """Of all that was asked for, so that another submission under the same id is an error and not lost."""


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
    total_batches: int | None = None
    """Known once the input is split to its end."""
    completion: Completion | None = None
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a job: batches that are final, and attempts."""

    batches_succeeded: int = 0
    batches_failed: int = 0
    attempts_succeeded: int = 0
    attempts_failed: int = 0
    succeeded_seconds: float = 0.0
    """Duration of the successful attempts, summed."""
    buckets: tuple[int, ...] = (0,) * (len(BUCKET_BOUNDS_SECONDS) + 1)
    """Successful attempts by duration, not cumulative."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive batches as consecutive ranges of the item stream.

    Batch `first_index + i` is the range of `lengths[i]` bytes that follows the ranges before it; `start` is where the
    first begins. A range ends with its last item's comma.
    """

    first_index: int
    start: int
    lengths: "array[int]"  # in quotes: array takes no parameters at run time before Python 3.12
    """Unsigned 32-bit (`array("I")`)."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where splitting goes on: the state of the partitioner after the segments that are on disk."""

    next_index: int = 0
    offset: int = 0
    """Bytes of the item stream that are in batches."""
    done: bool = False


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Outcome:
    """A batch's end. Recorded once; the first one stands."""

    index: int
    succeeded: bool
    attempts: int
    """Deliveries it took, lost workers not counted."""
    http_status: int
    """Of the last attempt; 0 when there was no answer."""
    error: str
    """Of the last attempt, for people; `""` after success."""
    ended_ns: int


@dataclass(frozen=True, slots=True)
class History:
    """What an open batch has been through; kept on disk so that a restart does not forget it."""

    attempts: int = 0
    """Attempts that failed."""
    losses: int = 0
    """Workers lost with it."""


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


class BatchState(Enum):
    """Where a batch is."""

    PENDING = "pending"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """The batches that are not final, as found in the ledger at a restart."""

    holes: list[int] = field(default_factory=list)
    """Below `next_index` and without an outcome, ascending."""
    next_index: int = 0
    """No batch from here on has an outcome."""
    histories: dict[int, History] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker process as a durable fact: written before it is started, removed after it ended."""

    worker_id: str
    job_id: str
    slot: int
    """The worker's number in its job, from 0. A replacement takes its predecessor's."""
    pid: int | None
    """None until it is known."""
    started: float | None
    """The process's start time as the machine tells it, so that a reused pid is not mistaken for it."""
    detail: str = ""
    """What the driver needs to find the worker again; opaque to everyone else."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A file or an object as it was when it was listed."""

    uri: str
    """`s3://bucket/key` or `file:///path`: plain text, nothing in it is escaped or decoded."""
    size: int
    """Bytes."""
    tag: str
    """Differs whenever the content does, as far as the store can tell: S3's etag; a file's size, mtime and inode."""
