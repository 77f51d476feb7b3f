"""The batches of one running job: given to workers, taken back, made durable.

What a worker reports changes the lease book at once; an outcome becomes durable in the recorder, and only then is the
worker told, and the job. Nothing here knows of the job's life: `on_recorded` says that something became durable, and
the job decides with `give` when batches may go out.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.common.events import wait_within
from services.scheduler.domain.attempts import policy_of, wait_after
from services.scheduler.domain.leases import AT_ONCE, Lease, LeaseBook, Verdict
from services.scheduler.domain.model.batch import BatchState, Halves, OpenBatches, Outcome
from services.scheduler.domain.model.job import JobRecord, Tally
from services.scheduler.usecases.input.batch_items import BatchItems
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.running.dispatch import Dispatcher
from services.scheduler.usecases.running.feed import Feed
from services.scheduler.usecases.running.giving_up import GivingUp, is_asked_for
from services.scheduler.usecases.running.recorder import Acknowledgement, Recorder
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class AttemptResult:
    """How one attempt ended, as its worker reports it."""

    index: int
    epoch: int
    succeeded: bool
    http_status: int
    seconds: float
    error: str
    reply: bytes
    """What the container answered to a successful one, where replies are kept."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as a returning worker remembers it."""

    index: int
    epoch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Returned:
    """A lease that a worker gives back."""

    index: int
    epoch: int
    lost_in_container: bool


class Batches:
    """All of a job's batches."""

    def __init__(
        self,
        around: Surroundings,
        trace: JobTrace,
        job: JobRecord,
        members: Mapping[str, Worker],
        max_concurrency: int,
        *,
        on_ready: Callable[[], None],
        on_recorded: Callable[[], None],
        on_grown: Callable[[int], None],
        on_delivered: Callable[[Worker], None],
        on_halved: Callable[[], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._clock = around.clock
        ledger, objects = around.ledger, around.objects
        self._trace = trace
        self._members = members
        self._max_concurrency = max_concurrency
        self._keeps_replies = job.spec.options.results is not None
        self._on_ready = on_ready
        self._on_recorded = on_recorded
        self._on_delivered = on_delivered
        self._on_halved = on_halved
        self._frozen = False
        self._book = LeaseBook(ledger.generation)
        self._feed = Feed(ledger, objects, job.spec.job_id, self._book, on_ready, self._lose, on_trouble)
        self._policy = policy_of(job.spec)
        self._sooner = asyncio.Event()
        """Set when an attempt is due before all that waited so far."""
        self._giving_up = GivingUp(
            around,
            job.spec,
            on_failed=self._failed,
            on_split=self._split,
            on_trouble=on_trouble,
        )
        self._is_final_at_once = not is_asked_for(job.spec)
        self._recorder = Recorder(
            ledger,
            BatchItems(ledger, objects, job.spec),
            job.spec.job_id,
            self._book,
            job.tally,
            on_recorded=self._recorded,
            on_given_up=self._giving_up.add,
            on_grown=on_grown,
            on_trouble=on_trouble,
        )
        self._dispatcher = Dispatcher(self._book, self._feed, trace, max_concurrency)

    # What there is

    @property
    def known(self) -> int:
        """Batches that are on disk so far, as far as they may be given out."""
        return self._feed.known

    @property
    def leased(self) -> int:
        """Batches in workers' hands, or whose outcome is not on disk yet."""
        return self._book.leased

    def is_leased(self, index: int) -> bool:
        """Whether a batch is one of these."""
        return self._book.is_leased(index)

    @property
    def tally(self) -> Tally:
        """Counts of what is on disk."""
        return self._recorder.tally

    @property
    def low_water(self) -> int:
        """Every batch below this is final, and on disk."""
        return self._recorder.low_water

    @property
    def trouble(self) -> str:
        """Why batches go neither out nor in just now, for people; empty when all is well."""
        return self._recorder.trouble or self._feed.trouble or self._giving_up.trouble

    def restore(self, found: OpenBatches) -> None:
        """Begin where an earlier scheduler left off."""
        for index in self._book.restore(found):
            self._giving_up.add(index, found.histories[index])
        self._recorder.restored()

    def extend(self, known: int) -> None:
        """More batches are on disk."""
        self._feed.extend(known)

    async def run(self) -> None:
        """Read ahead, record, and see to what failed, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recorder.run(), name="recorder")
            tasks.create_task(self._feed.run(), name="feed")
            tasks.create_task(self._await_due(), name="waiting")
            tasks.create_task(self._giving_up.run(), name="giving up")

    async def _await_due(self) -> None:
        """Put batches back whose next attempt is due."""
        while True:
            self._sooner.clear()
            due = self._book.next_due
            await wait_within(self._sooner, None if due is None else max(0.0, due - self._clock.monotonic()))
            if self._book.put_back_due(self._clock.monotonic()):
                self._feed.wake()

    async def freeze(self) -> None:
        """The job's end is decided: write what was taken, and let nothing count any more, so that final is final."""
        self._frozen = True
        await self._recorder.flush()

    # Giving out

    def give(self, *, input_split: bool) -> None:
        """Lease what is ready to workers that have room."""
        if not self._frozen and not self._recorder.full:
            self._dispatcher.dispatch(self._members.values(), input_split=input_split)

    def take_back(self) -> None:
        """Ask the workers for what their containers do not have yet."""
        self._dispatcher.take_back(self._members.values())

    # What workers say

    def adopt(self, worker: Worker, held: Sequence[HeldLease], results: Sequence[AttemptResult]) -> list[int]:
        """A worker returns with what it holds and has done. Gives the epochs of held leases that are not honoured."""
        held = sorted(held, key=lambda lease: lease.epoch)  # as they were given: the oldest are in the container
        known = self._feed.known
        dropped = [
            lease.epoch
            for lease in held
            if not self._book.adopt(lease.index, lease.epoch, lease.attempt, worker.id, known)
        ]
        for result in results:
            self._book.adopt(result.index, result.epoch, self._book.attempts(result.index) + 1, worker.id, known)
        # What the worker no longer remembers, it did not get: its stream broke under way.
        remembered = {lease.epoch for lease in held} | {result.epoch for result in results}
        for lease in list(self._book.held(worker.id)):
            if lease.epoch not in remembered:
                self._release(worker, lease, lost=False)
        worker.held_bytes = sum(lease.size for lease in self._book.held(worker.id))
        self._feed.wake()
        return dropped

    def results(self, worker: Worker, results: Sequence[AttemptResult]) -> None:
        """Attempts ended."""
        void = [result.epoch for result in results if not self._take(worker, result)]
        if void and worker.link is not None:
            worker.link.send_recorded(void)
        self._on_ready()

    def returned(self, worker: Worker, returned: Sequence[Returned]) -> None:
        """A worker gives leases back."""
        for entry in returned:
            worker.revoked.discard(entry.epoch)
            lease = self._book.lease(entry.index, entry.epoch)
            if lease is not None and lease.worker == worker.id:
                self._release(worker, lease, lost=entry.lost_in_container)
        self._feed.wake()
        self._on_recorded()

    def lost(self, worker: Worker) -> None:
        """A worker is gone. Its oldest leases, as many as it works on at once, may have been in its container."""
        for position, lease in enumerate(list(self._book.held(worker.id))):
            # A worker that was told to end, or said that it will, did not die of its batches.
            lost = position < self._max_concurrency and not worker.leaving
            self._release(worker, lease, lost=lost)
        self._feed.wake()

    # What follows

    def _lose(self, index: int, reason: str) -> None:
        """A batch's items are not to be had any more."""
        attempts = self._book.attempts(index)
        self._book.lose(index)
        outcome = Outcome(index, BatchState.FAILED, attempts, 0, reason, self._clock.now_ns())
        self._recorder.outcome(outcome, None, None)

    def _take(self, worker: Worker, result: AttemptResult) -> bool:
        """Take a result for recording. False when it counts for nothing."""
        if self._frozen:
            return False
        index, acknowledgement = result.index, Acknowledgement(worker.id, result.epoch)
        worker.held_bytes -= self._book.size_of(index, result.epoch)
        attempts = self._book.attempts(index) + 1
        if result.succeeded or result.http_status:
            self._on_delivered(worker)
        if result.succeeded:
            verdict, lease = self._book.succeed(index)
            self._free(worker, lease)
        else:
            verdict = self._fail(result, attempts)
        match verdict:
            case Verdict.VOID:
                return False
            case Verdict.WAIT:
                self._recorder.acknowledge_with_next(acknowledgement)
            case Verdict.RETRY:
                history = self._book.histories[index]
                self._trace.batch_settled(index, result.error)
                self._recorder.setback(index, history, attempt=True, acknowledgement=acknowledgement)
                self._feed.wake()
            case Verdict.FINAL if result.succeeded:
                self._trace.batch_answered(index)
                reply = result.reply if self._keeps_replies else None
                status, now_ns = result.http_status, self._clock.now_ns()
                outcome = Outcome(index, BatchState.SUCCEEDED, attempts, status, "", now_ns, reply)
                self._recorder.outcome(outcome, result.seconds, acknowledgement)
            case Verdict.FINAL:
                self._trace.batch_answered(index)
                self._give_up(index, acknowledgement, attempt=True)
        return True

    def _fail(self, result: AttemptResult, attempts: int) -> Verdict:
        wait = wait_after(self._policy, attempts, result.http_status, random.random())  # noqa: S311  # no secret
        due = self._clock.monotonic() + wait if wait else AT_ONCE if wait is not None else None
        verdict = self._book.fail(result.index, result.epoch, result.http_status, result.error, due)
        if due and due == self._book.next_due:
            self._sooner.set()
        return verdict

    def _give_up(self, index: int, acknowledgement: Acknowledgement | None, *, attempt: bool) -> None:
        """There will be no further attempt. `attempt`: the last thing that happened was one."""
        if self._is_final_at_once:
            history = self._book.histories[index]
            status, error, now_ns = history.http_status, history.error, self._clock.now_ns()
            outcome = Outcome(index, BatchState.FAILED, history.attempts, status, error, now_ns)
            self._recorder.outcome(outcome, 0.0 if attempt else None, acknowledgement)
        else:
            history = self._book.give_up(index)
            self._trace.batch_settled(index, history.error)
            self._recorder.setback(index, history, attempt=attempt, acknowledgement=acknowledgement)

    def _failed(self, outcome: Outcome) -> None:
        if not self._frozen:
            self._recorder.outcome(outcome, None, None)

    def _split(self, outcome: Outcome, halves: Halves) -> None:
        if not self._frozen:
            self._on_halved()
            self._recorder.split(outcome, halves)

    def _free(self, reporter: Worker, lease: Lease | None) -> None:
        """A batch that succeeded elsewhere is nobody's any more."""
        holder = self._members.get(lease.worker) if lease is not None else None
        if lease is None or holder is None or holder is reporter:
            return
        holder.held_bytes -= lease.size
        if holder.link is not None:
            holder.link.send_revoked([lease.epoch])

    def _release(self, worker: Worker, lease: Lease, *, lost: bool) -> None:
        if self._frozen:
            return
        worker.held_bytes -= lease.size
        verdict = self._book.release(lease.index, lease.epoch, lost=lost)
        if verdict is Verdict.FINAL:
            self._give_up(lease.index, None, attempt=False)
        elif lost:
            history = self._book.histories[lease.index]
            self._recorder.setback(lease.index, history, attempt=False, acknowledgement=None)
        self._trace.batch_settled(lease.index, "given back")

    def _recorded(self, outcomes: list[Outcome], acknowledgements: list[Acknowledgement]) -> None:
        by_worker: dict[str, list[int]] = {}
        for acknowledgement in acknowledgements:
            by_worker.setdefault(acknowledgement.worker, []).append(acknowledgement.epoch)
        for worker_id, epochs in by_worker.items():
            worker = self._members.get(worker_id)
            if worker is not None and worker.link is not None:
                worker.link.send_recorded(epochs)
        for outcome in outcomes:
            self._trace.batch_settled(outcome.index, outcome.error)
        self._on_recorded()
