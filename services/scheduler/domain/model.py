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


class SourceKind(Enum):
    """What a job's items are, where they are not in its submission."""

    FILE_PATHS = "file_path_lister"  # the files' paths
    FILE_CONTENTS = "delimited_files"  # the JSON values in the files
    STREAM = "stream"  # what the submitter sends while the job runs


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's items come from after its submission was accepted."""

    kind: SourceKind
    paths: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


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
    options: Options = Options()
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
class Segment:
    """Consecutive batches as consecutive ranges of the item stream.

    Batch `first_index + i` is the range of `lengths[i]` bytes that follows the ranges before it; `start` is where the
    first begins. A range ends with its last item's comma.
    """

    first_index: int
    start: int
    lengths: "array[int]"  # in quotes: array takes no parameters at run time before Python 3.12
    """Unsigned 32-bit (`array("I")`)."""

    def range_of(self, index: int) -> tuple[int, int]:
        """Where in the item stream one of its batches begins and ends."""
        position = index - self.first_index
        start = self.start + sum(self.lengths[:position])
        return start, start + self.lengths[position]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where splitting goes on: the state of the partitioner after the segments that are on disk."""

    next_index: int = 0
    """Batches that there are."""
    offset: int = 0
    """Bytes of the item stream that are in batches."""
    done: bool = False
    """The input is split to its end."""
    position: str = ""
    """Where in its source the item stream on disk ends; the source knows what it means."""


class BatchState(Enum):
    """Where a batch is."""

    PENDING = "pending"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SPLIT = "split"  # it kept failing and was halved: its items are in two other batches


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Outcome:
    """A batch's end. Recorded once; the first one stands."""

    index: int
    state: BatchState
    """SUCCEEDED, FAILED or SPLIT."""
    attempts: int
    """Deliveries it took, lost workers not counted."""
    http_status: int
    """Of the last attempt; 0 when there was no answer."""
    error: str
    """Of the last attempt, for people; `""` after success."""
    ended_ns: int
    reply: bytes | None = None
    """What the container answered, where that is kept and asked for."""


@dataclass(frozen=True, slots=True)
class Halves:
    """A batch that kept failing, as two ranges of the item stream."""

    index: int
    start: int
    lengths: tuple[int, int]


@dataclass(frozen=True, slots=True)
class History:
    """What an open batch has been through; kept on disk so that a restart does not forget it."""

    attempts: int = 0
    """Attempts that failed."""
    losses: int = 0
    """Workers lost with it."""
    epoch: int = 0
    """Of the lease that brought the last of these: what it and those before it brought is counted."""
    http_status: int = 0
    """Of the last attempt that failed; 0 when there was no answer."""
    error: str = ""
    """What went wrong last, for people."""
    given_up: bool = False
    """It is not delivered any more: its end is being prepared."""


@dataclass(frozen=True, slots=True)
class Control:
    """What was changed while the job ran."""

    workers: int | None = None
    """None: as it was submitted."""
    paused: bool = False
    """No batches are given out."""


@dataclass(frozen=True, slots=True)
class Notice:
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
    notice: Notice | None = None
    """None: nobody is to be told, or the job is not over."""

    @property
    def known_batches(self) -> int:
        """Batches that there are so far; those that were halved do not count."""
        return self.cursor.next_index - self.tally.batches_split

    @property
    def total_batches(self) -> int | None:
        """Batches in the whole job; known once its input is split to the end. It grows when a batch is halved."""
        return self.known_batches if self.cursor.done else None

    @property
    def workers(self) -> int:
        """Workers that the job is to have."""
        if self.control.workers is not None:
            return self.control.workers
        scaling = self.spec.options.scaling
        return self.spec.workers if scaling is None else scaling.workers(self.known_batches)


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


@dataclass(frozen=True, slots=True)
class Reference:
    """A part of an item stream that is not copied, because it can be read again: an object's bytes, with a comma for
    every line feed.
    """

    source: StoredObject
    start: int
    """Where it begins in the object."""
    length: int
    """Bytes of the item stream. Where the object's last line has no line feed it is one more than there are bytes."""
    checksum: int
    """CRC-32 of these bytes of the item stream."""


Piece = bytes | Reference
"""A part of an item stream, ending where an item ends."""


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """A piece and where it begins in the item stream."""

    start: int
    piece: Piece

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + (self.piece.length if isinstance(self.piece, Reference) else len(self.piece))
