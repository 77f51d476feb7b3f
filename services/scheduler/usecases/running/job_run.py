"""One job that is not over: everything that happens to it comes together here.

It all runs on one event loop. Its batches are `batches.py`'s business and its workers `worker_pool.py`'s; here is its
life: state changes go through one task in order, so that each is on disk before anyone sees it, and what follows from
them is done.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from services.common.errors import CortexError
from services.scheduler.domain import lifecycle
from services.scheduler.domain.lifecycle import Life
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import Completion, JobRecord, JobStatus, total_batches
from services.scheduler.usecases.input.job_input import JobInput
from services.scheduler.usecases.input.stream_source import StreamSource
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.workers import WorkerLink
from services.scheduler.usecases.running.batches import Batches
from services.scheduler.usecases.running.changes import Changes
from services.scheduler.usecases.running.ending import Ending
from services.scheduler.usecases.running.job_file import JobFile
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.progress import Speedometer
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker
from services.scheduler.usecases.running.worker_pool import WorkerPool
from services.scheduler.usecases.running.worker_words import WorkerWords

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 5.0
"""For the containers of a job that is over: from being told to end until they are killed."""


class JobRun:
    """A job from its acceptance, or from the scheduler's restart, to its end."""

    def __init__(
        self, around: Surroundings, api: ApiVersion, job: JobRecord, max_concurrency: int, stream: StreamSource | None
    ) -> None:
        """`stream` brings the items of a new job whose source is one."""
        self._around = around
        self.api = api
        """The API version that the job runs."""
        self._job = job
        self._life = lifecycle.begin(job.state, publishes=job.spec.published is not None)
        self._events: asyncio.Queue[lifecycle.Event] = asyncio.Queue()
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = False
        self._updating = asyncio.Lock()
        self._speed = Speedometer(around.clock, job.tally.batches_final)
        self._background: list[asyncio.Task[None]] = []
        self._trace = around.trace(job)
        self.changes = Changes()
        """Told whenever there is something new to see."""
        self._patience = Patience(self.id, "it cannot be written", self.changes.tell)
        self._job_file = JobFile(around, lambda: self.record, self._patience, self._spawn)
        self._pool = WorkerPool(
            around,
            api,
            job,
            self._trace,
            on_created=lambda: self._post(lifecycle.WorkerCreated()),
            on_lost=self._on_worker_lost,
            on_trouble=self.changes.tell,
            on_hopeless=self.end,
            spawn=self._spawn,
        )
        self.batches = Batches(
            around,
            self._trace,
            job,
            self._pool.members,
            max_concurrency,
            on_ready=self._give,
            on_recorded=self._on_recorded,
            on_grown=lambda known: self._input.grown(known),
            on_delivered=self._pool.budget.delivered,
            on_halved=self._pool.budget.excuse,
            on_trouble=self.changes.tell,
        )
        """What becomes of batches goes there."""
        self.workers = WorkerWords(
            self._pool, self.batches, moved=self._moved, may_complete=self._may_complete, completed=self._completed
        )
        """What workers say goes there, and what the driver says of them."""
        self._ending = Ending(around, job.spec, lambda: self.batches.tally, self._post, self.changes.tell)
        self._input = JobInput(around.ledger, around.objects, job, stream, self._on_extended, self.changes.tell)
        self.at_work = asyncio.Event()
        """Set when it knows its workers of before a restart: one that returns earlier would be turned away."""
        self.over = asyncio.Event()
        """Set when the job's state is final, and durably so."""
        self.gone = asyncio.Event()
        """Set when its workers are gone too."""

    # What others read

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.spec.job_id

    @property
    def record(self) -> JobRecord:
        """The job as it is on disk."""
        return replace(
            self._job,
            state=self._life.state,
            tally=self.batches.tally,
            cursor=self._input.cursor,
            low_water=self.batches.low_water,
        )

    def view(self) -> JobView:
        """The job as its clients see it."""
        job = self.record
        progress = self._speed.read(job.tally.batches_final, job.total_batches, paused=job.control.paused)
        trouble = (
            self.batches.trouble
            or self._input.trouble
            or self._patience.trouble
            or self._ending.trouble
            or self._pool.readiness.trouble
        )
        return JobView(job, self.batches.leased, dict(self._pool.counts()), trouble, progress)

    # Changing

    async def update(self, workers: int | None, paused: bool | None) -> bool:
        """Change the number of workers, or whether batches are given out; None: leave it. False: the job is over."""
        async with self._updating:
            now = self._job.control
            control = replace(
                now,
                workers=now.workers if workers is None else workers,
                paused=now.paused if paused is None else paused,
            )
            if not self.over.is_set() and control != now:
                await self._around.ledger.set_control(self.id, control)
            if self.over.is_set():
                return False
            self._job = replace(self._job, control=control)
        if control.paused:
            self.batches.take_back()
        if self._pool.size:
            self._pool.resize(self.record.workers)
        await self._job_file.write_soon()
        self._give()
        self.changes.tell()
        return True

    # Life

    async def run(self, resumed: bool) -> None:
        """Live until the job is over and its workers are gone. Cancelled: leave everything as it is, durably."""
        timeout = self._arm_timeout()
        try:
            await self._run(resumed)
        finally:
            self._tasks = None
            self.at_work.set()
            self._input.close("the scheduler stops")
            if timeout is not None:
                timeout.cancel()

    async def _run(self, resumed: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._spawn(self._obey_events(), "events", until_over=True)
            self._spawn(self.batches.run(), "batches", until_over=True)
            if resumed:
                await self._recover()
            self.at_work.set()
            self.batches.extend(self._input.cursor.next_index)
            beginning = tasks.create_task(self._begin(), name="begin")
            self._settle()
            await self.over.wait()
            self._around.on_over()
            beginning.cancel()
            self._input.close(f"it is over: {self._life.state.status.value} ({self._life.state.reason})")
            await self._end_workers(f"the job is over: {self._life.state.status.value}")
            await self._around.driver.clean_up(self.id)
            self.gone.set()
            for task in self._background:
                task.cancel()

    async def _begin(self) -> None:
        """Start the workers, and split the rest of the input while they work; or go on with what comes after that."""
        if self._life.phase is lifecycle.Phase.PUBLISHING:
            self._publish()
            return
        await self._job_file.write()
        self._pool.resize(self.record.workers)
        if not self._input.cursor.done:
            try:
                await self._input.run()
            except CortexError as error:
                self._post(lifecycle.InputFailed(error.message, self._around.clock.now_ns()))
            else:
                self._post(lifecycle.InputSplit())

    async def _end_workers(self, reason: str) -> None:
        await self._pool.end(reason, 0.0, 2 * STOP_GRACE_SECONDS, job_over=True)

    def _publish(self) -> None:
        """All that is left to do is to write the results."""
        self._spawn(self._end_workers("the job's batches are done"), "end workers")
        self._spawn(self._ending.publish(), "publish", until_over=True)

    async def abandon(self, error: Exception) -> None:
        """`run` broke: end the workers, and the job, whatever there is left of both."""
        await self._pool.abandon()
        if not self.over.is_set():
            reason = f"the system failed: {_cause(error)}"
            now_ns = self._around.clock.now_ns()
            state = replace(self._life.state, status=JobStatus.UNEXPECTED_ERROR, reason=reason, ended_ns=now_ns)
            await self._patience(partial(self._around.ledger.set_state, self.id, state))
            self._life = Life(state, lifecycle.Phase.OVER)
            self._trace.finished(state, self.batches.tally)
            self.over.set()
            self._around.on_over()
        await self._around.driver.clean_up(self.id)
        self.gone.set()
        self.changes.tell()

    async def hand_back(self, grace_seconds: float) -> None:
        """The scheduler ends: let the workers finish or give back what they hold, within the grace."""
        await self._pool.end("the system is stopping", grace_seconds, grace_seconds, job_over=False)

    def _arm_timeout(self) -> asyncio.TimerHandle | None:
        seconds = self._job.spec.timeout_seconds
        if seconds is None:
            return None
        elapsed = (self._around.clock.now_ns() - self._job.spec.created_ns) / 1e9
        reason = f"the job did not finish within its timeout of {seconds} s"
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, seconds - elapsed), self.end, JobStatus.TIMED_OUT, reason)

    async def _recover(self) -> None:
        """After a restart: find what is open, and wait for the workers that may hold some of it."""
        patience, ledger = Patience(self.id, "it cannot be read", self.changes.tell), self._around.ledger
        self.batches.restore(await patience(partial(ledger.open_batches, self.id, self._job.low_water)))
        await self._pool.adopt(await patience(partial(ledger.workers, self.id)))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, *, until_over: bool = False) -> None:
        if self._tasks is None:
            work.close()
            return
        try:
            task = self._tasks.create_task(work, name=name)
        except RuntimeError:  # it is being cancelled: whoever goes on after a restart sees to it
            work.close()
            return
        if until_over:
            self._background.append(task)

    # Events

    def end(self, status: JobStatus, reason: str) -> None:
        """End the job before its work is done."""
        self._post(lifecycle.Ended(status, reason, self._around.clock.now_ns()))

    def _post(self, event: lifecycle.Event) -> None:
        self._events.put_nowait(event)

    async def _obey_events(self) -> None:
        """Let events change the job's life, one after the other, each durable before it is visible."""
        while not self.over.is_set():
            life, effects = lifecycle.advance(self._life, await self._events.get())
            for effect in effects:
                match effect:
                    case lifecycle.Persist():
                        if life.phase is lifecycle.Phase.OVER:
                            await self.batches.freeze()
                        await self._patience(partial(self._around.ledger.set_state, self.id, life.state))
                    case lifecycle.AskCompletion(worker):
                        if self.batches.tally.batches_split:
                            await self._job_file.write_soon()  # there are more batches than the containers were told
                        link = self._pool.members[worker].link if worker in self._pool.members else None
                        if link is not None:
                            link.send_complete(self._trace.job_complete())
                    case lifecycle.Publish():
                        self._publish()
                    case lifecycle.DescribeJob():
                        self._life = life
                        await self._job_file.write_soon()
                        self._settle()
                    case lifecycle.EndWorkers():
                        self._life = life
                        self._trace.finished(life.state, self.batches.tally)
                        self.over.set()
            self._life = life
            self._pool.readiness.need(life.completer)
            self.changes.tell()

    @property
    def _total(self) -> int | None:
        """The record's, asked for with each commit of outcomes: a whole record would cost more than all the rest."""
        return total_batches(self._input.cursor, self.batches.tally)

    @property
    def _all_final(self) -> bool:
        """Whether all of the job's outcomes are on disk."""
        return self._total == self.batches.tally.batches_final

    def _settle(self) -> None:
        """Tell the job's life how the batches stand, where that can matter."""
        if not self._all_final or self._pool.awaited:
            return
        ready = sorted((w for w in self._pool.members.values() if w.usable), key=lambda worker: worker.record.slot)
        candidates = tuple(worker.id for worker in ready)
        self._post(lifecycle.Settled(self.batches.tally.batches_final, self._total, self.batches.leased, candidates))

    def _give(self) -> None:
        if not self._pool.ending and not self._pool.awaited and not self._job.control.paused:
            self.batches.give(input_split=self._input.cursor.done)

    def _on_extended(self, known: int) -> None:
        self.batches.extend(known)
        if self._pool.size and self._job.spec.options.scaling is not None:
            self._pool.resize(self.record.workers)

    def _on_recorded(self) -> None:
        self._speed.note(self.batches.tally.batches_final)
        self._stop_if_too_many_failed()
        self._moved()

    def _stop_if_too_many_failed(self) -> None:
        total = self._total
        if total is not None and not self._stopping and self._ending.too_many_failed(total):
            self._stopping = True
            self._spawn(self._ending.stop(total), "too many failed")

    # What workers say

    def _moved(self) -> None:
        self._settle()
        self._give()
        self.changes.tell()

    def _may_complete(self, worker: Worker, link: WorkerLink, completing: bool) -> None:
        """A worker is back. `completing`: it has been told to POST /on-job-complete."""
        if completing and self._all_final:
            self._post(lifecycle.CompletionUnderWay(worker.id))
        elif self._life.completer == worker.id:
            link.send_complete(self._trace.job_complete())  # the request was lost with the last stream

    def _completed(self, worker: Worker, completion: Completion) -> None:
        self._spawn(self._ending.completed(worker.id, completion), "completion")

    def _on_worker_lost(self, worker: Worker) -> None:
        self.batches.lost(worker)
        self._post(lifecycle.WorkerLost(worker.id))
        self._moved()


def _cause(error: BaseException) -> str:
    """What broke, for people."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.message if isinstance(error, CortexError) else f"{type(error).__name__}: {error}"
