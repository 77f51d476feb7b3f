"""The durable truth, by subject. `Ledger` is all of it; who needs one part asks for that."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState, Cursor, Halves, History, OpenBatches, Outcome, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece
from services.scheduler.domain.model.job import Control, JobRecord, JobSpec, JobState, RequestKey, Tally, WebhookStatus
from services.scheduler.domain.model.worker import WorkerRecord


class ApiLedger(Protocol):
    """Deployed APIs."""

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


class JobLedger(Protocol):
    """Jobs, and the requests that became them."""

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

    async def set_state(self, job_id: str, state: JobState) -> None:
        """Where the job is now. With a final state its webhook, if it has one, is due."""

    async def set_control(self, job_id: str, control: Control) -> None:
        """What a user changed."""

    async def job(self, job_id: str) -> JobRecord | None:
        """One job."""

    async def jobs(
        self, api_name: str | None = None, *, running_only: bool = False, limit: int = 100, after: str = ""
    ) -> list[JobRecord]:
        """Jobs, newest first (ascending by id), behind the id `after`."""


class InputLedger(Protocol):
    """Jobs' item streams, and the batches that they are cut into."""

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

    async def segments(self, job_id: str, first_index: int, limit: int) -> list[Segment]:
        """Segments in order, from the one that holds batch `first_index`, at most `limit`."""

    async def read_input(self, job_id: str, start: int, end: int) -> list[PlacedPiece]:
        """The pieces that hold a range of the job's item stream, in order, as far as there are any.

        Stored bytes are cut to the range. A reference is told whole.
        """

    async def references(self, job_id: str, start: int, limit: int) -> list[PlacedPiece]:
        """The references that begin in the job's item stream at `start` or behind it, in order, at most `limit`."""

    async def next_piece(self, job_id: str, offset: int) -> bytes:
        """The item stream from `offset` to the end of the piece that holds it; empty at the stream's end.

        For jobs whose items are all stored.
        """

    async def keep_items(self, job_id: str, copies: Mapping[int, bytes]) -> None:
        """Keep copies of batches' items, each a range of the item stream that is only referred to."""

    async def kept_items(self, job_id: str, indexes: Sequence[int]) -> dict[int, bytes]:
        """The copies that were kept of these batches' items."""


class OutcomeLedger(Protocol):
    """What became of batches."""

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

    async def open_batches(self, job_id: str, low_water: int) -> OpenBatches:
        """What is open at a restart. Memory in the order of the holes, not of the batches."""


class WebhookLedger(Protocol):
    """Webhooks of jobs that are over."""

    async def due_webhooks(self, limit: int) -> list[tuple[int, str]]:
        """When an attempt is due to tell whose end (job ids), the earliest first."""

    async def set_webhook(self, job_id: str, webhook: WebhookStatus) -> None:
        """How telling a job's end stands."""


class WorkerLedger(Protocol):
    """Worker processes."""

    async def put_worker(self, worker: WorkerRecord) -> None:
        """A worker is about to be started, or its process is known now."""

    async def remove_worker(self, worker_id: str) -> None:
        """A worker has ended for good."""

    async def workers(self, job_id: str | None = None) -> list[WorkerRecord]:
        """Workers that were started and not removed."""


class Ledger(ApiLedger, JobLedger, InputLedger, OutcomeLedger, WebhookLedger, WorkerLedger, Protocol):
    """The durable truth. A write that returned is on disk; one that raised changed nothing.

    Raises `CortexError` with category STORAGE_FULL (kind `ledger.storage_full`) when the disk is full, with category
    UNAVAILABLE (kind `ledger.unavailable`) when the store cannot be reached now, and with category INTERNAL (kind
    `ledger.failed`) when it is broken. Writes are grouped: many callers share a commit.

    One scheduler writes. Once another has opened the ledger every write of this one raises kind `ledger.deposed`, even
    one that was under way, and whoever opened it for this process is told (`on_deposed`): it must end at once.
    """

    @property
    def generation(self) -> int:
        """How often this ledger has been opened by a scheduler, this time included. The upper part of every epoch."""

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the ledger; signs worker tokens."""

    async def close(self) -> None:
        """Finish what was asked for and let go of the files."""
