"""The workers of one job: one in each slot, started, watched, replaced, counted and ended.

A worker is a durable fact before its process exists, so that a restarted scheduler knows whom to wait for. It is
*lost* when its process is gone, or when its stream stays away longer than the grace. A lost worker's slot gets a new
one, with backoff.

What a worker says of itself counts while it has a stream; before its first one, and while it is away, the driver's word
does. A worker of which the driver says that its dequeuer has not run yet is not waited for: it may lack an image or a
machine for as long as the start-up deadline allows.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.common.errors import CortexError
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord, JobStatus
from services.scheduler.domain.model.worker import ContainerState, End, Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.ports.workers import WorkerExit, WorkerLink
from services.scheduler.usecases.running.readiness import Readiness
from services.scheduler.usecases.running.restart_budget import RestartBudget
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker
from services.scheduler.usecases.running.worker_starts import StartFailed, WorkerStarts, superseded

log = logging.getLogger(__name__)

UNKNOWN_PROCESS_GRACE_SECONDS = 5.0
"""For a worker of which a crash left no process id: if it was started at all, it calls within this."""
DISMISSAL_GRACE_SECONDS = 300.0
"""A worker that is no longer wanted may finish what its container has; the rest it gives back at once."""
RESIZE_AGAIN_SECONDS = 2.0
"""Between two tries to set the number of workers."""
PAST_WORKERS = 1000
"""So many ids of lost workers are remembered, to turn them away if they call after all."""


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
        self._job = job
        self._trace = trace
        self._on_created = on_created
        self._on_lost = on_lost
        self._on_hopeless = on_hopeless
        self._spawn = spawn
        self._fitting = asyncio.Lock()
        self._fitted = 0  # slots that were looked at when the size was set last
        self._ended = asyncio.Event()
        self._ends: Counter[str] = Counter()
        self._going = 0  # workers that are being taken out
        self._past: deque[str] = deque(maxlen=PAST_WORKERS)
        self.size = 0
        """Workers that the job is to have; 0 before it began."""
        self.ending = False
        self.members: dict[str, Worker] = {}
        self.awaited: set[str] = set()
        """Workers of before a restart that neither came back nor are known to be gone."""
        self.readiness = Readiness(self.members, around.startup_deadline_seconds, on_trouble, on_hopeless)
        self.budget = RestartBudget(self.members, on_hopeless)
        self._starts = WorkerStarts(
            around,
            api,
            job,
            trace,
            self.members,
            wanted=lambda slot: not self.ending and slot < self.size,
            started=self._started,
            failed=self._not_started,
            settled=self._note_end,
            spawn=spawn,
        )

    # Starting

    async def adopt(self, known: Sequence[WorkerRecord]) -> None:
        """After a restart: take over the workers that may still be there, and await them."""
        self.awaited = {record.worker_id for record in known}
        gone = superseded(known)
        for record in known:
            if record.worker_id in gone or (record.found and not await self._driver.adopt(record)):
                await self._forget(record.worker_id)
                self.awaited.discard(record.worker_id)
                continue
            worker = self.members[record.worker_id] = Worker(record, known=True)
            self._await_return(worker, None if record.found else UNKNOWN_PROCESS_GRACE_SECONDS)

    def resize(self, size: int) -> None:
        """Have a worker in every slot of `size`, and let those beyond end."""
        self.size = size
        self.readiness.look()
        for worker in list(self.members.values()):
            if worker.record.slot >= size and worker.id != self.readiness.needed and not worker.leaving:
                worker.leaving = worker.dismissed = True
        self._spawn(self._fit(), "fit the workers")

    async def _fit(self) -> None:
        async with self._fitting:
            begun, size = self._fitted, self.size
            await self._tell_size(size)
            if self.ending:
                return
            self._fitted = size
            for worker in list(self.members.values()):
                if worker.dismissed:
                    self._dismiss(worker)
            taken = {worker.record.slot for worker in self.members.values()} | self._starts.waiting
            for slot in range(begun, size):
                if slot not in taken:
                    self._starts.soon(slot)

    async def _tell_size(self, size: int) -> None:
        if (needed := self.members.get(self.readiness.needed or "")) is not None:
            size = max(size, needed.record.slot + 1)
        while not self.ending:
            try:
                await self._driver.resize(self._job, size)
            except CortexError as error:
                log.warning("job %s: its number of workers cannot be set: %s", self._job.spec.job_id, error.message)
                await asyncio.sleep(RESIZE_AGAIN_SECONDS)
            else:
                return

    def _dismiss(self, worker: Worker) -> None:
        worker.stop_starting()
        if worker.link is not None:  # otherwise it is told when it calls
            worker.link.send_shutdown("the job has fewer workers now", DISMISSAL_GRACE_SECONDS, job_over=False)

    async def _started(self, worker: Worker) -> None:
        if worker.id not in self.members:
            await self._driver.kill(worker.record)  # the job ended meanwhile
            await self._forget(worker.id)
            return
        self._on_created()
        if worker.link is None and not worker.vouched:
            self._await_return(worker)

    async def _not_started(self, worker: Worker, failure: StartFailed) -> None:
        if failure.hopeless:
            reason = f"worker {worker.record.slot} cannot be started: {failure.reason}"
            self._on_hopeless(JobStatus.WORKER_ERROR, reason)
        await self._gone(worker, failure.as_exit(worker.id), failure.pause_seconds)

    # What workers say, and what the driver says of them

    def connected(self, worker: Worker, link: WorkerLink) -> None:
        """A worker opened its stream; an earlier one of it is void."""
        if worker.link is not None:
            worker.link.close("replaced by a newer stream")
        worker.link = link
        self.awaited.discard(worker.id)
        worker.revoked.clear()
        worker.stop_grace()
        if worker.containers:
            link.send_containers(worker.containers)
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
        worker.leaving |= health.phase is Phase.TERMINATING
        if health.phase is Phase.READY:
            self._trace.worker_ready(worker.record)
        self.readiness.look()
        self.budget.judge(worker, health)

    def driver_says(self, worker: Worker, health: Health) -> None:
        """How the driver sees a worker; its dequeuer, where there is a stream, knows better."""
        if worker.link is not None:
            return
        worker.vouched = health.phase.before_dequeuer
        if worker.vouched:
            worker.stop_grace()
            self.awaited.discard(worker.id)
            self._on_created()  # what it waits for (an image, its turn) is seen in the job's counts
        else:  # what failed before it finished a batch it alone can tell
            last = worker.health
            health = replace(health, failed_starts=last.failed_starts, out_of_memory=last.out_of_memory)
            if worker.grace is None and worker.starting is None:
                self._await_return(worker)
        self.health_changed(worker, health)

    def containers_changed(self, worker: Worker, containers: Sequence[ContainerState]) -> None:
        """The containers of a worker whose dequeuer does not run them."""
        worker.containers = containers
        if worker.link is not None:
            worker.link.send_containers(containers)

    def was_here(self, worker_id: str) -> bool:
        """It was one of the workers, and is counted as lost."""
        return worker_id in self._past

    # Losing

    def _await_return(self, worker: Worker, seconds: float | None = None) -> None:
        worker.stop_grace()
        seconds = self._around.reconnect_grace_seconds if seconds is None else seconds
        worker.grace = asyncio.get_running_loop().call_later(seconds, self._stayed_away, worker)

    def _stayed_away(self, worker: Worker) -> None:
        log.warning("job %s: worker %d did not come back; replacing it", self._job.spec.job_id, worker.record.slot)
        self.exited(WorkerExit(worker.id, "its dequeuer did not come back", End.KILLED))

    def exited(self, exit_: WorkerExit) -> None:
        """A worker's process is gone."""
        worker = self.members.get(exit_.worker_id)
        if worker is not None:
            self._spawn(self._gone(worker, exit_), f"end worker {worker.record.slot}")

    async def _gone(self, worker: Worker, exit_: WorkerExit, delay: float = 0.0) -> None:
        """Take a worker out, for good, and put another one in its slot, after `delay` at least."""
        if self.members.pop(worker.id, None) is None:
            return
        self._going += 1
        try:
            await self._take_out(worker, exit_)
        finally:
            self._going -= 1
            self._note_end()
        if not self.ending:
            self._follow(worker, exit_, delay)

    async def _take_out(self, worker: Worker, exit_: WorkerExit) -> None:
        self._past.append(worker.id)
        self._ends[exit_.end.value] += worker.record.found
        self._let_go(worker, "the worker is gone")
        self.readiness.failed(exit_.reason)
        await self._driver.kill(worker.record)
        await self._forget(worker.id)
        self.awaited.discard(worker.id)
        self._on_lost(worker)

    def _follow(self, worker: Worker, exit_: WorkerExit, delay: float) -> None:
        """Another worker takes the slot, unless that is hopeless."""
        slot = worker.record.slot
        if worker.dismissed:
            self.budget.forgive(slot)
            self._replace(slot)
            return
        self._trace.worker_lost(worker.record, exit_.reason)
        pause = self.budget.ended(worker, exit_)
        if pause is not None:
            self._replace(slot, max(pause, delay))

    def _let_go(self, worker: Worker, why: str) -> None:
        worker.stop_grace()
        worker.stop_starting()
        if worker.link is not None:
            worker.link.close(why)

    def _replace(self, slot: int, delay: float = 0.0) -> None:
        """Put a worker into a slot that became empty, unless that is no longer wanted, or done already."""
        taken = any(worker.record.slot == slot for worker in self.members.values()) or slot in self._starts.waiting
        if slot < self.size and not taken:
            self._starts.soon(slot, delay)

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
                gone = self._gone(worker, WorkerExit(worker.id, reason, End.KILLED))
                self._spawn(gone, f"end worker {worker.record.slot}")
        self._note_end()
        try:
            async with asyncio.timeout(patience_seconds):
                await self._ended.wait()
        except TimeoutError:
            for worker in list(self.members.values()):
                await self._gone(worker, WorkerExit(worker.id, "it did not end in time", End.KILLED))

    def _note_end(self) -> None:
        """All have ended when there is none, and none that is just being started or taken out."""
        if self.ending and not self.members and not self._starts.under_way and not self._going:
            self._ended.set()

    async def abandon(self) -> None:
        """End all workers at once and tell nobody: the job is broken."""
        self.ending = True
        self.readiness.stop()
        while self.members:
            _, worker = self.members.popitem()
            self._let_go(worker, "the job is over")
            await self._driver.kill(worker.record)
            await self._forget(worker.id)

    def counts(self) -> Counter[str]:
        """Workers by phase, and those that ended since the scheduler began by how they did."""
        return Counter(worker.phase.value for worker in self.members.values()) + self._ends
