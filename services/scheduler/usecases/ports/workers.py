"""Workers: started and ended by a driver, spoken to over a link."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.leases import Lease
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, End, Health, WorkerRecord


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker's process is gone."""

    worker_id: str
    reason: str
    """For people."""
    end: End = End.FAILED
    blameless: bool = False
    """It was disrupted (its machine was reclaimed, drained or lost, it was preempted, or deleted by hand): this is not
    its failure."""


class WorkerDriver(Protocol):
    """Starts and ends workers. A worker is one dequeuer with the user's containers.

    What it tells (`on_exit`, `on_health`, `on_containers`) it tells on the event loop. Of a worker that `start` or
    `adopt` has just returned it tells the latest once more right after, by `call_soon`: before, nobody knew the id.
    """

    outlives_scheduler: bool
    """Workers go on when a scheduler ends in good order, and the next one adopts them. False: they end with it."""

    def check(self, config: ApiConfig) -> None:
        """Raises `CortexError` (INVALID) when no worker of this API could ever run here."""

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        """Start a worker's process and say what is known of it now.

        The worker returned may have another id, if that is the one under which it will call; then its `detail` is not
        empty. `token` is for this worker; a driver whose workers share one specification signs its own, for the job.
        May wait as long as it takes until there is a worker, and is cancelled when it is not wanted any more; what may
        come of it later is not handed out, or is handed out by the next `start` in that slot.

        Raises `CortexError` with a sentence for people when it cannot be started; with category STORAGE_FULL or
        UNAVAILABLE when that is not its fault, with INVALID when trying again cannot help.
        """

    async def adopt(self, worker: WorkerRecord) -> bool:
        """After a restart: watch a worker that an earlier scheduler started. False when it is gone.

        Raises nothing: where it cannot be told now, it is True, and `on_exit` tells later.
        """

    async def kill(self, worker: WorkerRecord) -> None:
        """End a worker's process now, if it is still there. Raises nothing: what cannot be done now is done later.

        Nothing is known to end of a worker that is not `found`.
        """

    async def resize(self, job: JobRecord, workers: int) -> None:
        """The job is to have workers in the slots below this number.

        Comes before workers are started, the first included, and before those beyond are told to end. Raises
        `CortexError` when it cannot be done now: it is asked for again.
        """

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        """Call back once for each worker whose process is gone, started or adopted."""

    def on_health(self, callback: Callable[[str, Health], None]) -> None:
        """Call back with (worker id, health) when that changed: where a worker is whose dequeuer says nothing.

        It counts while there is no stream; `failed_starts` and the like only before the dequeuer has run at all
        (`Phase.before_dequeuer`). So a pod is `CREATING` while a container crashes that is started before its dequeuer.
        While `start` waits it may be said of the id that `start` was given.
        """

    def on_containers(self, callback: Callable[[str, Sequence[ContainerState]], None]) -> None:
        """Call back with (worker id, all of its containers) when one changed that is not run by the dequeuer."""

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        """Make this what the containers of the job's workers find as /cortex/spec/job.json. Raises `CortexError`."""

    async def clean_up(self, job_id: str) -> None:
        """Remove what the job's workers leave behind, their kept output excepted. Raises nothing, as `kill`."""


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

    def send_containers(self, containers: Sequence[ContainerState]) -> None:
        """How the worker's containers are; replaces what was said before."""

    def send_shutdown(self, reason: str, grace_seconds: float, *, job_over: bool) -> None:
        """End. `job_over`: the job needs this worker no more, nor another one in its place."""

    def close(self, reason: str) -> None:
        """Cut the stream."""
