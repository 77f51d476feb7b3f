"""A job's batches for people and programs to look at: where each is, how it went, and its items.

Batches that are final have an outcome; of one that has none, the job's run knows whether a worker holds it.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.scheduler.domain.model.batch import BatchState, Outcome
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.partition import payload
from services.scheduler.usecases.input.batch_items import BatchItems
from services.scheduler.usecases.input.input_reader import UnreadableError
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.running.jobs import Jobs

MAX_PAGE_BYTES = 4 * 1024 * 1024 - 4096
"""With its token a page is what a gRPC client takes by default."""
BATCH_BYTES = 64
"""Of a message for one batch, its texts not counted: the most that it can be."""
WINDOW = 1024
"""Batches looked at together where open ones are wanted."""
MAX_WINDOWS = 256
"""For one page: it ends there, empty if need be, so that nobody waits long for it."""

_FINAL = frozenset((BatchState.SUCCEEDED, BatchState.FAILED, BatchState.SPLIT))


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as a client sees it."""

    index: int
    state: BatchState
    attempts: int
    http_status: int = 0
    error: str = ""
    ended_ns: int | None = None
    items: bytes = b""
    """The JSON array that containers get; `b""` where it cannot be read any more."""
    reply: bytes = b""
    """What the container answered, as JSON text; empty where nobody asks for it."""

    @property
    def size(self) -> int:
        """Bytes of a message for it, at most."""
        return len(self.items) + len(self.reply) + len(self.error.encode()) + BATCH_BYTES


@dataclass(frozen=True, slots=True)
class Page:
    """Batches in order."""

    batches: list[BatchView]
    following: int | None
    """The index from which to go on; None after the last."""


@dataclass(frozen=True, slots=True)
class BatchPages:
    """Lists batches."""

    ledger: Ledger
    objects: ObjectStore
    jobs: Jobs

    async def __call__(self, api_name: str, job_id: str, states: frozenset[BatchState], first: int, limit: int) -> Page:
        """Batches in one of the states, from the index `first` on, at most `limit`.

        Raises `CortexError` like `Jobs.view`.
        """
        view = await self.jobs.view(api_name, job_id)
        found = await self._find(view.job, states, first, limit)
        page = await first_with_items(BatchItems(self.ledger, self.objects, view.job.spec), found.batches)
        return Page(page, found.following if len(page) == len(found.batches) else found.batches[len(page)].index)

    async def _find(self, job: JobRecord, states: frozenset[BatchState], first: int, limit: int) -> Page:
        if states == _FINAL or (states <= _FINAL and len(states) == 1):
            state = None if states == _FINAL else next(iter(states))
            outcomes = await self.ledger.outcomes(job.spec.job_id, first, state=state, limit=limit + 1)
            more = outcomes[limit].index if len(outcomes) > limit else None
            return Page([final_view(outcome) for outcome in outcomes[:limit]], more)
        known = job.cursor.next_index
        found: list[BatchView] = []
        index = first if states & _FINAL else max(first, job.low_water)
        for _ in range(MAX_WINDOWS):
            if index >= known:
                return Page(found, None)
            end = min(index + WINDOW, known)
            for batch in await self._window(job.spec.job_id, index, end):
                if batch.state in states:
                    if len(found) == limit:
                        return Page(found, batch.index)
                    found.append(batch)
            index = end
        return Page(found, index)

    async def _window(self, job_id: str, first: int, end: int) -> list[BatchView]:
        """All batches of a range."""
        run = self.jobs.run(job_id)
        # Before the outcomes: a batch that is recorded in between is then seen as final, and none as waiting again.
        held = {index for index in range(first, end) if run.batches.is_leased(index)} if run is not None else set()
        outcomes = {batch.index: batch for batch in await self.ledger.outcomes(job_id, first, end, limit=WINDOW)}
        histories = await self.ledger.histories(job_id, first, end)
        if run is None or run.over.is_set():
            held = set()  # what a worker still holds will never count
        found = []
        for index in range(first, end):
            if index in outcomes:
                found.append(final_view(outcomes[index]))
            else:
                attempts = histories[index].attempts if index in histories else 0
                found.append(BatchView(index, BatchState.LEASED if index in held else BatchState.PENDING, attempts))
        return found


async def first_with_items(items: BatchItems, batches: Sequence[BatchView]) -> list[BatchView]:
    """Batches (ascending) with their items, from the first on, as many as make a page; at least one, if there is."""
    page: list[BatchView] = []
    room = MAX_PAGE_BYTES
    async with aclosing(items.ranges([batch.index for batch in batches])) as ranges:
        async for _, read in ranges:
            batch = replace(batches[len(page)], items=b"" if isinstance(read, UnreadableError) else payload(read))
            room -= batch.size
            if room < 0 and page:
                break
            page.append(batch)
    return page


def final_view(outcome: Outcome) -> BatchView:
    """A batch that is final, without its items."""
    return BatchView(
        outcome.index, outcome.state, outcome.attempts, outcome.http_status, outcome.error, outcome.ended_ns
    )
