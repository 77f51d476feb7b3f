"""What a job's workers say, and what the driver says of them: each word to the part that it concerns.

Afterwards the job looks how its batches stand and gives out what it can (`moved`).
"""

from collections.abc import Callable, Sequence

from services.scheduler.domain.model.job import Completion
from services.scheduler.domain.model.worker import ContainerState, Health
from services.scheduler.usecases.ports.workers import WorkerExit, WorkerLink
from services.scheduler.usecases.running.batches import AttemptResult, Batches, HeldLease
from services.scheduler.usecases.running.worker import Worker
from services.scheduler.usecases.running.worker_pool import WorkerPool


class WorkerWords:
    """See the module's text."""

    def __init__(
        self,
        pool: WorkerPool,
        batches: Batches,
        *,
        moved: Callable[[], None],
        may_complete: Callable[[Worker, WorkerLink, bool], None],
        completed: Callable[[Worker, Completion], None],
    ) -> None:
        """`may_complete` takes up /on-job-complete with a worker that is back; with True, it is at it."""
        self._pool = pool
        self._batches = batches
        self._moved = moved
        self._may_complete = may_complete
        self._completed = completed

    def find(self, worker_id: str) -> Worker | None:
        """A worker of this job."""
        return self._pool.members.get(worker_id)

    def was_here(self, worker_id: str) -> bool:
        """It was a worker of this job, and is counted as lost."""
        return self._pool.was_here(worker_id)

    # From the worker

    def hello(
        self,
        worker: Worker,
        link: WorkerLink,
        held: Sequence[HeldLease],
        results: Sequence[AttemptResult],
        *,
        completing: bool,
    ) -> list[int]:
        """A worker opens its stream. Returns the epochs of held leases that are not honoured.

        `completing`: it has been told to POST /on-job-complete.
        """
        self._pool.connected(worker, link)
        dropped = self._batches.adopt(worker, held, results)
        self._may_complete(worker, link, completing)
        self._moved()
        return dropped

    def disconnected(self, worker: Worker, link: WorkerLink) -> None:
        """A worker's stream broke."""
        self._pool.disconnected(worker, link)
        self._moved()

    def leaving(self, worker: Worker) -> None:
        """A worker says that it ends."""
        worker.leaving = True

    def credit(self, worker: Worker, batches: int, size: int) -> None:
        """A worker says how much it may hold."""
        worker.credit_batches, worker.credit_bytes = batches, size
        self._moved()

    def health(self, worker: Worker, health: Health) -> None:
        """A worker's containers changed."""
        self._pool.health_changed(worker, health)
        self._moved()

    def completion(self, worker: Worker, completion: Completion) -> None:
        """The container answered /on-job-complete."""
        self._completed(worker, completion)

    # From the driver

    def exited(self, exit_: WorkerExit) -> None:
        """A worker's process is gone."""
        self._pool.exited(exit_)

    def driver_says(self, worker: Worker, health: Health) -> None:
        """How the driver sees a worker."""
        self._pool.driver_says(worker, health)
        self._moved()

    def containers(self, worker: Worker, containers: Sequence[ContainerState]) -> None:
        """The containers of a worker whose dequeuer does not run them."""
        self._pool.containers_changed(worker, containers)
