"""What the use cases need from the world. `adapters/` makes it real; tests may make it different."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.domain.leases import Lease
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState, Cursor, Halves, History, OpenBatches, Outcome, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece, StoredObject
from services.scheduler.domain.model.job import Control, JobRecord, JobSpec, JobState, Notice, RequestKey, Tally
from services.scheduler.domain.model.worker import WorkerRecord


class Clock(Protocol):
    """Time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, by the machine's clock: for people."""

    def monotonic(self) -> float:
        """Seconds that never jump: for waiting."""


class Ledger(Protocol):
    """The durable truth. A write that returned is on disk; one that raised changed nothing.

    Raises `CortexError` with category STORAGE_FULL (kind `ledger.storage_full`) when the disk is full, and with
    category INTERNAL (kind `ledger.failed`) when the store is broken. Writes are grouped: many callers share a commit.
    """

    @property
    def generation(self) -> int:
        """How often this ledger has been opened by a scheduler, this time included. The upper part of every epoch."""

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the ledger; signs worker tokens."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the files."""

    # APIs

    async def put_apis(self, versions: Sequence[ApiVersion]) -> None:
        """Make these the versions in force, all or none. Earlier versions stay known."""

    async def delete_api(self, name: str) -> None:
        """Take an API out of force. Its jobs stay known."""

    async def api(self, name: str, api_id: str | None = None) -> ApiVersion | None:
        """The version in force, or the one asked for (which may be out of force)."""

    async def apis(self) -> list[ApiVersion]:
        """The versions in force, by name."""

    async def api_versions(self, name: str) -> list[ApiVersion]:
        """Versions that an API has had, newest first, at most 100."""

    # Jobs

    async def add_job(
        self,
        spec: JobSpec,
        state: JobState,
        pieces: Iterable[Piece],
        segments: Sequence[Segment],
        cursor: Cursor,
        request: RequestKey | None = None,
        *,
        earlier_retry: str = "",
    ) -> str:
        """Accept a job: its item stream (in pieces), its first segments, and where splitting goes on.

        Returns the job's id. A request that was accepted before changes nothing and returns the id of its job. Raises
        `CortexError` (`job.idempotency_key_reused`) when that was a request for something else.

        An empty digest says that the request is not complete yet: see `add_segments`. Until then nobody else may use
        its id (`job.stream_in_progress`), and when its job ends without, the id is free again.

        The job that it is a retry of is `retried_by` it from then on. Raises `CortexError` (`job.already_retried`) when
        that one's latest retry so far is not `earlier_retry`: somebody else was faster.
        """

    async def request(self, api_name: str, request_id: str) -> tuple[str, RequestKey] | None:
        """The job that a request has become, whatever else it asked for, and what it asked for."""

    async def requested(self, api_name: str, request: RequestKey) -> str | None:
        """The job that a request has become; None for a new one. Raises `CortexError` as `add_job` does."""

    async def add_segments(
        self,
        job_id: str,
        segments: Sequence[Segment],
        cursor: Cursor,
        pieces: Iterable[Piece] = (),
        digest: bytes = b"",
    ) -> int:
        """More segments, together with the cursor behind them. Returns how many batches there are then.

        The segments get the next free indexes, in their order, whatever they carry: batches may have been halved
        meanwhile. `pieces` make the item stream longer, before that. `digest` completes the request that became it.
        """

    async def set_state(self, job_id: str, state: JobState) -> None:
        """Where the job is now. With a final state its webhook, if it has one, is due."""

    async def set_control(self, job_id: str, control: Control) -> None:
        """What a user changed."""

    async def record(
        self,
        job_id: str,
        outcomes: Sequence[Outcome],
        histories: Mapping[int, History],
        tally: Tally,
        low_water: int,
        halves: Sequence[Halves] = (),
    ) -> int:
        """Outcomes of batches that had none, histories of batches still open, and the counts that follow from both.

        With an outcome its reply, where it has one. What a batch has on disk stands.
        The halves of split batches become batches with the next free indexes. Returns how many batches there are then.
        """

    async def job(self, job_id: str) -> JobRecord | None:
        """One job."""

    async def jobs(
        self, api_name: str | None = None, *, running_only: bool = False, limit: int = 100, after: str = ""
    ) -> list[JobRecord]:
        """Jobs, newest first (ascending by id), behind the id `after`."""

    async def segments(self, job_id: str, first_index: int, limit: int) -> list[Segment]:
        """Segments in order, from the one that holds batch `first_index`, at most `limit`."""

    async def read_input(self, job_id: str, start: int, end: int) -> list[PlacedPiece]:
        """The pieces that hold a range of the job's item stream, in order, as far as there are any.

        Stored bytes are cut to the range. A reference is told whole.
        """

    async def references(self, job_id: str, start: int, limit: int) -> list[PlacedPiece]:
        """The references that begin in the job's item stream at `start` or behind it, in order, at most `limit`."""

    async def keep_items(self, job_id: str, copies: Mapping[int, bytes]) -> None:
        """Keep copies of batches' items, each a range of the item stream that is only referred to."""

    async def kept_items(self, job_id: str, indexes: Sequence[int]) -> dict[int, bytes]:
        """The copies that were kept of these batches' items."""

    async def outcomes(
        self,
        job_id: str,
        first_index: int = 0,
        end_index: int | None = None,
        *,
        state: BatchState | None = None,
        limit: int = 1000,
    ) -> list[Outcome]:
        """Batches that are final, ascending, at most `limit`.

        Asked for by a range of indexes (without `end_index` to the end), and by how they ended. The failed
        ones are found quickly among any number of others.
        """

    async def replies(self, job_id: str, first_index: int, end_index: int | None, max_bytes: int) -> list[Outcome]:
        """Batches of a range that succeeded, ascending, with their kept replies.

        Replies of `max_bytes` in all, or a larger one alone; 1,000 batches at most.
        """

    async def histories(self, job_id: str, first_index: int, end_index: int) -> dict[int, History]:
        """What the open batches of a range have been through, where that is anything; some final ones' too."""

    async def next_piece(self, job_id: str, offset: int) -> bytes:
        """The item stream from `offset` to the end of the piece that holds it; empty at the stream's end.

        For jobs whose items are all stored.
        """

    async def open_batches(self, job_id: str, low_water: int) -> OpenBatches:
        """What is open at a restart. Memory in the order of the holes, not of the batches."""

    # Webhooks

    async def notices(self, limit: int) -> list[tuple[int, str]]:
        """When an attempt is due to tell whose end (job ids), the earliest first."""

    async def set_notice(self, job_id: str, notice: Notice) -> None:
        """How telling a job's end stands."""

    # Workers

    async def put_worker(self, worker: WorkerRecord) -> None:
        """A worker is about to be started, or its process is known now."""

    async def remove_worker(self, worker_id: str) -> None:
        """A worker has ended for good."""

    async def workers(self, job_id: str | None = None) -> list[WorkerRecord]:
        """Workers that were started and not removed."""


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker's process is gone."""

    worker_id: str
    reason: str
    """For people."""


class WorkerDriver(Protocol):
    """Starts and ends workers. A worker is one dequeuer with the user's containers."""

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        """Start a worker's process and say what is known of it now.

        Raises `CortexError` with a sentence for people when it cannot be started; with category STORAGE_FULL when
        that is not its fault, with INVALID when trying again cannot help.
        """

    async def adopt(self, worker: WorkerRecord) -> bool:
        """After a restart: watch a worker that an earlier scheduler started. False when it is gone."""

    async def kill(self, worker: WorkerRecord) -> None:
        """End a worker's process now, if it is still there."""

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        """Call back on the event loop once for each worker whose process is gone, started or adopted."""

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        """Make this what the containers of the job's workers find as /cortex/spec/job.json."""

    async def clean_up(self, job_id: str) -> None:
        """Remove what the job's workers leave behind, their kept output excepted."""


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Grant:
    """A lease on its way to a worker, with what the worker needs to deliver it."""

    lease: Lease
    payload: bytes
    """The request's body."""
    traceparent: str


class WorkerLink(Protocol):
    """The open work stream to one worker. Sending never waits: what is sent at once travels together."""

    def send_grants(self, grants: Sequence[Grant]) -> None:
        """Batches to deliver."""

    def send_recorded(self, epochs: Sequence[int]) -> None:
        """Results that the worker may forget."""

    def send_revoked(self, epochs: Sequence[int]) -> None:
        """Leases to give back where the container does not have their batch yet."""

    def send_complete(self, traceparent: str) -> None:
        """POST /on-job-complete."""

    def send_shutdown(self, reason: str, grace_seconds: float) -> None:
        """End."""

    def close(self, reason: str) -> None:
        """Cut the stream."""


class NoticeSender(Protocol):
    """Tells receivers of a job's end."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """POST once. The status (0: no answer), and what went wrong, for people; `""` when it was taken."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a worker's container, or its dequeuer, wrote."""

    time_ns: int
    worker: int
    """The worker's number in its job, from 0."""
    container: str
    message: str


class LogReader(Protocol):
    """The kept output of jobs' workers."""

    def tail(
        self, api_name: str, job_id: str, follow: bool, finished: asyncio.Event
    ) -> AsyncIterator[Sequence[LogEntry]]:
        """What is there, oldest first; with `follow` also what comes, until `finished` is set."""


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


MESSAGE_REFUSED = "aws.message_refused"
"""The kind of error for a message that its queue will never take."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch that is given up, on its way to a queue of the user's."""

    job_id: str
    api_name: str
    index: int
    attempts: int
    http_status: int
    """Of the last attempt; 0 when there was no answer."""
    error: str
    """Of the last attempt, for people."""
    body: str
    """The JSON array that containers got."""


class DeadLetterQueues(Protocol):
    """The users' SQS queues, by their ARNs.

    Raises `CortexError` everywhere: kinds `aws.*` say what is wrong with which queue and what to do; category
    UNAVAILABLE is for what may pass by itself.
    """

    async def check(self, arn: str) -> None:
        """Raise `CortexError` when the queue is not there or not ours to use: `aws.queue_not_found`, ..."""

    async def send(self, arn: str, letter: DeadLetter) -> None:
        """Put a batch into a queue. It is in there when this returns.

        Raises `CortexError` (MESSAGE_REFUSED) when the queue will never take this one. A FIFO queue takes the
        same batch once, however often it is sent within five minutes.
        """


class ReadableObjects(Protocol):
    """Files and objects by URI, to read. A URI is plain text: `s3://bucket/` and the key, `file://` and the path.

    Raises `CortexError` everywhere: kinds `aws.*` and `files.*` say what is wrong with which bucket, key or path and
    what to do; category UNAVAILABLE is for what may pass (network, 5xx, throttling), after the client's own retries.
    """

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """The objects whose URI starts with `prefix`, recursively, in pages, ascending by the UTF-8 of their keys.

        Only those behind the URI `after`. A few stores that are compatible with S3 keep another order; behind an
        object is there what they list later. Directories, and the objects that stand for them (a key that ends with
        `/`), are not listed.
        """

    async def read(self, stored: StoredObject, start: int, end: int) -> bytes:
        """The bytes of a range.

        Raises `CortexError` (`objects.changed`, category CONFLICT) when it is gone or not what was listed any more.
        """


class ObjectStore(ReadableObjects, Protocol):
    """The same, and to write."""

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """Make this the object's content: the whole or nothing. In constant memory."""

    async def check_writable(self, uri_prefix: str) -> None:
        """Raise `CortexError` when nothing can be written there."""
