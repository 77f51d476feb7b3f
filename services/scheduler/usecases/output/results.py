"""A job's kept replies, and its failed batches, from the first batch on: as they are now, or until the job's end.

Read in pages of bounded size, each when the one before was taken. A follower reads what lies below the job's
*low-water mark* (everything there is final), so that it sees all batches in order and none is added behind it;
what lies beyond it comes when the job is over and nothing changes any more.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.common.errors import Category, CortexError
from services.common.replies import reply_json
from services.scheduler.domain.model.batch import BatchState
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.usecases.input.batch_items import BatchItems
from services.scheduler.usecases.output.batch_pages import MAX_PAGE_BYTES, BatchView, final_view, first_with_items
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.running.changes import pause
from services.scheduler.usecases.running.job_run import JobRun
from services.scheduler.usecases.running.jobs import Jobs

READ_BYTES = 1024 * 1024
"""Of replies read together, unless a single one is larger."""
READ_FAILED = 256
"""Failed batches looked up together."""
PACE_SECONDS = 0.01
"""Between two looks at a job that goes on: it may change thousands of times a second."""


@dataclass(frozen=True, slots=True)
class ResultPages:
    """Reads what is there, from one index to another (None: to the end), in pages that make a message each."""

    ledger: Ledger
    objects: ObjectStore

    async def replies(self, job_id: str, first: int = 0, end: int | None = None) -> AsyncIterator[list[BatchView]]:
        """Batches that succeeded, with their replies."""
        while found := await self.ledger.replies(job_id, first, end, READ_BYTES):
            for page in _fitting(replace(final_view(o), reply=reply_json(o.reply or b"")) for o in found):
                yield page
            first = found[-1].index + 1

    async def failed(self, job: JobSpec, first: int = 0, end: int | None = None) -> AsyncIterator[list[BatchView]]:
        """Batches that failed, with their items."""
        failed, items = BatchState.FAILED, BatchItems(self.ledger, self.objects, job)
        while found := await self.ledger.outcomes(job.job_id, first, end, state=failed, limit=READ_FAILED):
            page = await first_with_items(items, [final_view(outcome) for outcome in found])
            yield page
            first = page[-1].index + 1


@dataclass(frozen=True, slots=True)
class TailResults:
    """Reads results."""

    ledger: Ledger
    objects: ObjectStore
    jobs: Jobs

    async def __call__(
        self, api_name: str, job_id: str, *, failed: bool, follow: bool, first: int
    ) -> AsyncIterator[list[BatchView]]:
        """Batches by index, from `first` on, in pages that make a message each. A follower's first page may be empty.

        Succeeded ones with their replies or, with `failed`, failed ones with their items. Raises `CortexError` like
        `Jobs.view`, and `job.results_not_kept`.
        """
        view = await self.jobs.view(api_name, job_id)
        if not failed:
            _check_kept(view.job.spec)
        job, run = view.job.spec, self.jobs.run(job_id)
        if not follow or run is None:
            found = self._pages(job, failed, first, None)
        else:
            found = self._follow(run, job, failed, first)
        async with aclosing(found) as pages:  # type: ignore[type-var]  # it is a generator
            async for page in pages:
                yield page

    async def _follow(self, run: JobRun, job: JobSpec, failed: bool, first: int) -> AsyncIterator[list[BatchView]]:
        with run.changes.watch() as changed:
            yield []  # there is such a job; a first result may take long
            while True:
                changed.clear()
                over = run.over.is_set()
                end = None if over else run.batches.low_water
                if end is None or end > first:
                    async for page in self._pages(job, failed, first, end):
                        yield page
                if end is None:
                    return
                first = max(first, end)
                await changed.wait()
                await pause(run.over, PACE_SECONDS)

    def _pages(self, job: JobSpec, failed: bool, first: int, end: int | None) -> AsyncIterator[list[BatchView]]:
        pages = ResultPages(self.ledger, self.objects)
        return pages.failed(job, first, end) if failed else pages.replies(job.job_id, first, end)


def _check_kept(job: JobSpec) -> None:
    if job.options.results is None:
        text = f'job {job.job_id} keeps no results: submit it with "results": true to read what its containers answer'
        raise CortexError("job.results_not_kept", text, Category.CONFLICT)


def _fitting(batches: Iterable[BatchView]) -> Iterator[list[BatchView]]:
    """The same in messages: a batch that is too large for one with others has its own."""
    page: list[BatchView] = []
    room = MAX_PAGE_BYTES
    for batch in batches:
        if page and batch.size > room:
            yield page
            page, room = [], MAX_PAGE_BYTES
        page.append(batch)
        room -= batch.size
    if page:
        yield page
