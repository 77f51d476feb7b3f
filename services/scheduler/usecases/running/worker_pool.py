"""The workers of one job: one in each slot, started, watched, replaced, counted and ended.

A worker is a durable fact before its process exists, so that a restarted scheduler knows whom to wait for. It is
*lost* when its process is gone, or when its stream stays away longer than the grace. A lost worker's slot gets a new
one, with backoff.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord, JobStatus
from services.scheduler.domain.model.worker import Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.ports.workers import WorkerExit, WorkerLink
from services.scheduler.usecases.running.readiness import Readiness
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker

log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 5
"""In a row, without a finished batch, until a worker counts as hopeless."""
MAX_EXCUSES = 4
"""In a row, without a finished batch, until a halved batch excuses its workers' failures no more."""
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)
UNKNOWN_PROCESS_GRACE_SECONDS = 5.0
"""For a worker of which a crash left no process id: if it was started at all, it calls within this."""
DISMISSAL_GRACE_SECONDS = 300.0
"""A worker that is no longer wanted may finish what its container has; the rest it gives back at once."""
STORAGE_RETRY_SECONDS = 2.0
"""A worker that could not be started because the disk is full is tried again so soon, and that is not its failure."""


class WorkerPool:
    """All workers of one job."""

    def __init__(
        self,
        around: Surroundings,
        api: ApiVersion,
        job: JobRecord,
        trace: JobTrace,
        *,
        on_created: Callable[[], None],
        on_lost: Callable[[Worker], None],
        on_trouble: Callable[[], None],
        on_hopeless: Callable[[JobStatus, str], None],
        spawn: Callable[..., None],
    ) -> None:
        self._around = around
        self._ledger = around.ledger
        self._driver = around.driver
        self._api = api
        self._job = job
        self._trace = trace
        self._on_created = on_created
        self._on_lost = on_lost
        self._on_hopeless = on_hopeless
        self._spawn = spawn
        self._failed_starts: Counter[int] = Counter()  # by slot: dequeuers in a row that ended without a batch
        self._excuses = 0  # in a row
        self._starting = 0
        self._waiting: set[int] = set()  # slots whose workers will be started soon
        self._ended = asyncio.Event()
        self.size = 0
        """Workers that the job is to have; 0 before it began."""
        self.ending = False
        self.members: dict[str, Worker] = {}
        self.awaited: set[str] = set()
        """Workers of before a restart that neither came back nor are known to be gone."""
        self.readiness = Readiness(self.members, around.startup_deadline_seconds, on_trouble, on_hopeless)

    # Starting

    async def adopt(self, known: Sequence[WorkerRecord]) -> None:
        """After a restart: take over the workers that may still be there, and await them."""
        self.awaited = {record.worker_id for record in known}
        for record in known:
            if record.pid is not None and not await self._driver.adopt(record):
                await self._forget(record.worker_id)
                self.awaited.discard(record.worker_id)
                continue
            worker = self.members[record.worker_id] = Worker(record)
            self._await_return(worker, UNKNOWN_PROCESS_GRACE_SECONDS if record.pid is None else None)

    def resize(self, size: int) -> None:
        """Have a worker in every slot of `size`, and let those beyond end."""
        begun = self.size
        self.size = size
        self.readiness.look()
        for worker in list(self.members.values()):
            if worker.record.slot >= size and not worker.leaving and worker.id != self.readiness.needed:
                self._dismiss(worker)
        taken = {worker.record.slot for worker in self.members.values()} | self._waiting
        for slot in range(begun, size):
            if slot not in taken:
                self._start_soon(slot)

    def _dismiss(self, worker: Worker) -> None:
        worker.leaving = worker.dismissed = True
        if worker.link is not None:  # otherwise it is told when it calls
            worker.link.send_shutdown("the job has fewer workers now", DISMISSAL_GRACE_SECONDS, job_over=False)

    def _start_soon(self, slot: int, delay: float = 0.0) -> None:
        self._waiting.add(slot)
        self._spawn(self._start(slot, delay), f"start worker {slot}")

    async def _start(self, slot: int, delay: float) -> None:
        await asyncio.sleep(delay)
        self._waiting.discard(slot)
        if self.ending or slot >= self.size:
            return
        self._starting += 1
        try:
            await self._start_now(slot)
        finally:
            self._starting -= 1
            self._note_end()

    async def _start_now(self, slot: int) -> None:
        record = WorkerRecord(secrets.token_hex(8), self._job.spec.job_id, slot, None, None)
        worker = self.members[record.worker_id] = Worker(record)
        self._trace.worker_starting(record)
        try:
            await self._ledger.put_worker(record)
            worker.health = Health(Phase.CREATING)
            token = self._around.token(record.job_id, record.worker_id)
            worker.record = await self._driver.start(self._api, self._job, record, token)
            await self._ledger.put_worker(worker.record)
        except CortexError as error:
            log.error("job %s: worker %d cannot be started: %s", self._job.spec.job_id, slot, error.message)
            if error.category is Category.INVALID:
                self._on_hopeless(JobStatus.WORKER_ERROR, f"worker {slot} cannot be started: {error.message}")
            blameless = error.category is Category.STORAGE_FULL
            await self._gone(worker, f"a worker could not be started: {error.message}", blameless=blameless)
            return
        if worker.id not in self.members:
            await self._driver.kill(worker.record)  # the job ended meanwhile
            await self._forget(worker.id)
            return
        self._on_created()
        if worker.link is None:
            self._await_return(worker)

    # What workers say

    def connected(self, worker: Worker, link: WorkerLink) -> None:
        """A worker opened its stream; an earlier one of it is void."""
        if worker.link is not None:
            worker.link.close("replaced by a newer stream")
        worker.link = link
        self.awaited.discard(worker.id)
        worker.revoked.clear()
        if worker.grace is not None:
            worker.grace.cancel()
            worker.grace = None
        if worker.dismissed:
            self._dismiss(worker)

    def disconnected(self, worker: Worker, link: WorkerLink) -> None:
        """A worker's stream broke. It has a while to come back."""
        if worker.link is not link:
            return
        worker.link = None
        if worker.id in self.members:  # also when it said that it leaves: its process may hang
            self._await_return(worker)

    def health_changed(self, worker: Worker, health: Health) -> None:
        """A worker's containers changed."""
        worker.health = health
        worker.excused = min(worker.excused, health.failed_starts)
        failed = health.failed_starts - worker.excused
        worker.leaving |= health.phase is Phase.TERMINATING
        if health.phase is Phase.READY:
            self._trace.worker_ready(worker.record)
        self.readiness.look()
        if health.cannot_start:
            self._on_hopeless(JobStatus.WORKER_ERROR, f"worker {worker.record.slot}: {health.reason}")
        elif failed >= MAX_FAILED_STARTS:
            status = JobStatus.WORKER_OOM if health.out_of_memory else JobStatus.WORKER_ERROR
            self._on_hopeless(
                status,
                _hopeless(worker.record.slot, failed, health.reason),
            )

    def delivered(self, worker: Worker) -> None:
        """A worker finished a batch: its restart budget is given back."""
        self._excuses = 0
        if not worker.delivered:
            worker.delivered = True
            self._failed_starts.pop(worker.record.slot, None)

    def excuse(self) -> None:
        """A batch was halved, maybe because it kills containers: these failures are not the workers'.

        Where nothing is ever finished in between, the containers are to blame after all.
        """
        if self._excuses < MAX_EXCUSES:
            self._excuses += 1
            self._failed_starts.clear()
            for worker in self.members.values():
                worker.excused = worker.health.failed_starts

    # Losing

    def _await_return(self, worker: Worker, seconds: float | None = None) -> None:
        if worker.grace is not None:
            worker.grace.cancel()
        loop = asyncio.get_running_loop()
        seconds = self._around.reconnect_grace_seconds if seconds is None else seconds
        worker.grace = loop.call_later(seconds, self._stayed_away, worker)

    def _stayed_away(self, worker: Worker) -> None:
        log.warning("job %s: worker %d did not come back; replacing it", self._job.spec.job_id, worker.record.slot)
        self._spawn(self._gone(worker, "its dequeuer did not come back"), f"end worker {worker.record.slot}")

    def exited(self, exit_: WorkerExit) -> None:
        """A worker's process is gone."""
        worker = self.members.get(exit_.worker_id)
        if worker is not None:
            self._spawn(self._gone(worker, exit_.reason), f"end worker {worker.record.slot}")

    async def _gone(self, worker: Worker, reason: str, *, blameless: bool = False) -> None:
        """Take a worker out, for good, and put another one in its slot. `blameless`: its end is not its failure."""
        if self.members.pop(worker.id, None) is None:
            return
        if worker.grace is not None:
            worker.grace.cancel()
        if worker.link is not None:
            worker.link.close("the worker is gone")
        self.readiness.failed(reason)
        await self._driver.kill(worker.record)
        await self._forget(worker.id)
        self.awaited.discard(worker.id)
        self._on_lost(worker)
        if self.ending:
            self._note_end()
            return
        slot = worker.record.slot
        if worker.dismissed:
            self._failed_starts.pop(slot, None)
            self._replace(slot)
            return
        self._trace.worker_lost(worker.record, reason)
        self._failed_starts[slot] += 0 if worker.delivered or blameless else 1
        failed = self._failed_starts[slot]
        if failed >= MAX_FAILED_STARTS:
            self._on_hopeless(
                JobStatus.WORKER_ERROR,
                _hopeless(slot, failed, reason),
            )
            return
        delay = BACKOFF_SECONDS[min(max(failed - 1, 0), len(BACKOFF_SECONDS) - 1)]
        delay = STORAGE_RETRY_SECONDS if blameless else delay
        self._replace(slot, delay)

    def _replace(self, slot: int, delay: float = 0.0) -> None:
        """Put a worker into a slot that became empty, unless that is no longer wanted, or done already."""
        taken = any(worker.record.slot == slot for worker in self.members.values()) or slot in self._waiting
        if slot < self.size and not taken:
            self._start_soon(slot, delay)

    async def _forget(self, worker_id: str) -> None:
        try:
            await self._ledger.remove_worker(worker_id)
        except CortexError as error:
            # It stays known; the next start of the scheduler finds that its process is gone.
            log.warning("worker %s stays in the ledger: %s", worker_id, error.message)

    # Ending

    async def end(self, reason: str, grace_seconds: float, patience_seconds: float, *, job_over: bool) -> None:
        """Tell all workers to end; kill those that have not within `patience_seconds`."""
        self.ending = True
        self.readiness.stop()
        for worker in list(self.members.values()):
            worker.leaving = True
            if worker.link is not None:
                worker.link.send_shutdown(reason, grace_seconds, job_over=job_over)
            else:
                self._spawn(self._gone(worker, reason), f"end worker {worker.record.slot}")
        self._note_end()
        try:
            async with asyncio.timeout(patience_seconds):
                await self._ended.wait()
        except TimeoutError:
            for worker in list(self.members.values()):
                await self._gone(worker, "it did not end in time")

    def _note_end(self) -> None:
        """All have ended when there is none, and none that is just being started."""
        if self.ending and not self.members and not self._starting:
            self._ended.set()

    async def abandon(self) -> None:
        """End all workers at once and tell nobody: the job is broken."""
        self.ending = True
        self.readiness.stop()
        while self.members:
            _, worker = self.members.popitem()
            if worker.grace is not None:
                worker.grace.cancel()
            if worker.link is not None:
                worker.link.close("the job is over")
            await self._driver.kill(worker.record)
            await self._forget(worker.id)

    def counts(self) -> Counter[str]:
        """Workers by phase."""
        return Counter(
            (Phase.TERMINATING if worker.leaving else worker.health.phase).value for worker in self.members.values()
        )


def _hopeless(slot: int, failed: int, reason: str) -> str:
    return f"worker {slot} failed {failed} times in a row without finishing a batch: {reason}"
