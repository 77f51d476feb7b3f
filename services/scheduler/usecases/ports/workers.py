"""Workers: started and ended by a driver, spoken to over a link."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.domain.leases import Lease
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import WorkerRecord


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
