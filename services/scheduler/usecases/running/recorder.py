"""Makes outcomes durable, then tells everyone.

Results gather while a write is under way, so the busier a job is, the more outcomes share a commit. A write that
fails (a full disk) is tried again until it succeeds: nothing is told before it is on disk, and workers keep their
results meanwhile.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.scheduler.domain.leases import LeaseBook
from services.scheduler.domain.model.batch import BatchState, Halves, History, Outcome
from services.scheduler.domain.model.job import BUCKET_BOUNDS_SECONDS, Tally
from services.scheduler.usecases.input.batch_items import BatchItems
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.ledger import Ledger

MAX_BACKLOG = 8192
MAX_BACKLOG_BYTES = 16 * 1024 * 1024
"""While more outcomes than this, or kept replies of more bytes, wait to be written, no batches are leased."""


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Acknowledgement:
    """Whom to tell that a result is on disk."""

    worker: str
    epoch: int


class Recorder:
    """The outcomes of one job on their way to the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        items: BatchItems,
        job_id: str,
        book: LeaseBook,
        tally: Tally,
        on_recorded: Callable[[list[Outcome], list[Acknowledgement]], None],
        on_given_up: Callable[[int, History], None],
        on_grown: Callable[[int], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._items = items
        self._job_id = job_id
        self._book = book
        self._on_recorded = on_recorded
        self._on_given_up = on_given_up
        self._on_grown = on_grown
        self._outcomes: list[Outcome] = []
        self._halves: list[Halves] = []
        self._acknowledgements: list[Acknowledgement] = []
        self._histories: dict[int, History] = {}
        self._next = _Running(tally)
        self._reply_bytes = 0  # that wait, or are being written
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.tally = tally
        """Counts of what is on disk."""
        self.low_water = 0
        """Every batch below this is final, and on disk."""
        self._patience = Patience(job_id, "outcomes cannot be written", on_trouble)

    @property
    def trouble(self) -> str:
        """Why nothing can be written just now; empty when all is well."""
        return self._patience.trouble

    @property
    def full(self) -> bool:
        """Whether too much waits to be written."""
        return len(self._outcomes) > MAX_BACKLOG or self._reply_bytes > MAX_BACKLOG_BYTES

    def restored(self) -> None:
        """The lease book knows what is on disk."""
        self.low_water = self._book.low_water(set())

    def outcome(self, outcome: Outcome, seconds: float | None, acknowledgement: Acknowledgement | None) -> None:
        """A batch is final. `seconds`: how long its last attempt took, None when its end was no attempt."""
        self._outcomes.append(outcome)
        if outcome.reply is not None:
            self._reply_bytes += len(outcome.reply)
        self._histories.pop(outcome.index, None)
        self._next.batch(outcome.state)
        if seconds is not None:
            self._next.attempt(outcome.state is BatchState.SUCCEEDED, seconds)
        if acknowledgement is not None:
            self._acknowledgements.append(acknowledgement)
        self._wake()

    def split(self, outcome: Outcome, halves: Halves) -> None:
        """A batch is replaced by its halves."""
        self._halves.append(halves)
        self.outcome(outcome, None, None)

    def setback(self, index: int, history: History, *, attempt: bool, acknowledgement: Acknowledgement | None) -> None:
        """A batch goes on with one more failed attempt, or one more lost worker, behind it."""
        self._histories[index] = history
        if attempt:
            self._next.attempt(succeeded=False, seconds=0.0)
        if acknowledgement is not None:
            self._acknowledgements.append(acknowledgement)
        self._wake()

    def acknowledge_with_next(self, acknowledgement: Acknowledgement) -> None:
        """A result whose batch is just being recorded by another one: tell its worker along with that."""
        self._acknowledgements.append(acknowledgement)
        self._wake()

    async def flush(self) -> None:
        """Wait until nothing waits to be written."""
        await self._idle.wait()

    def _wake(self) -> None:
        self._work.set()
        self._idle.clear()

    async def run(self) -> None:
        """Write what gathers until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self._write()
            if not self._work.is_set():
                self._idle.set()

    async def _write(self) -> None:
        taken = self._take()
        failed = sorted(outcome.index for outcome in taken.outcomes if outcome.state is BatchState.FAILED)
        if failed:
            await self._patience(lambda: self._items.copy_failed(failed))  # first: they may be asked for soon
        await self._patience(lambda: self._commit(taken))

    def _take(self) -> "_Taken":
        taken = _Taken(self._outcomes, self._halves, self._histories, self._acknowledgements, self._next.tally())
        self._outcomes, self._halves, self._histories, self._acknowledgements = [], [], {}, []
        return taken

    async def _commit(self, taken: "_Taken") -> None:
        outcomes, histories, halves = taken.outcomes, taken.histories, taken.halves
        known = 0
        if outcomes or histories:
            low_water = self._book.low_water({outcome.index for outcome in outcomes})
            known = await self._ledger.record(self._job_id, outcomes, histories, taken.tally, low_water, halves)
            self.low_water = low_water
        self.tally = taken.tally
        for outcome in outcomes:
            self._book.recorded(outcome.index)
            if outcome.reply is not None:
                self._reply_bytes -= len(outcome.reply)
        if halves:
            self._on_grown(known)
        for index, history in histories.items():
            if history.given_up:
                self._on_given_up(index, history)
        self._on_recorded(outcomes, taken.acknowledgements)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What is written together."""

    outcomes: list[Outcome]
    halves: list[Halves]
    histories: dict[int, History]
    acknowledgements: list[Acknowledgement]
    tally: Tally


class _Running:
    """A tally under way: counting in place costs a tenth of building a new one for each batch."""

    def __init__(self, tally: Tally) -> None:
        self._base = tally
        self._batches = {
            BatchState.SUCCEEDED: tally.batches_succeeded,
            BatchState.FAILED: tally.batches_failed,
            BatchState.SPLIT: tally.batches_split,
        }
        self._attempts = [tally.attempts_failed, tally.attempts_succeeded]
        self._seconds = tally.succeeded_seconds
        self._buckets = list(tally.buckets)

    def batch(self, state: BatchState) -> None:
        self._batches[state] += 1

    def attempt(self, succeeded: bool, seconds: float) -> None:
        self._attempts[succeeded] += 1
        if succeeded:
            self._seconds += seconds
            self._buckets[bisect_left(BUCKET_BOUNDS_SECONDS, seconds)] += 1

    def tally(self) -> Tally:
        return replace(
            self._base,
            batches_succeeded=self._batches[BatchState.SUCCEEDED],
            batches_failed=self._batches[BatchState.FAILED],
            batches_split=self._batches[BatchState.SPLIT],
            attempts_succeeded=self._attempts[True],
            attempts_failed=self._attempts[False],
            succeeded_seconds=self._seconds,
            buckets=tuple(self._buckets),
        )
