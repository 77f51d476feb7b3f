"""A new job of just the failed batches of one that is over.

The new job has the same batches, configuration and limits, and runs the version of the API that is in force. Their
items are copied into an input of its own, the first of them with the job, the rest while it works. Batches of which
the items cannot be read any more are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.common.errors import Category, CortexError
from services.scheduler.domain.errors import api_not_deployed
from services.scheduler.domain.job_id import JobIds
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.model.job import JobRecord, JobStatus, RequestKey
from services.scheduler.domain.model.options import Options, Results
from services.scheduler.domain.numbers import check_workers
from services.scheduler.usecases.input.retry_input import Chunk, failed_batches
from services.scheduler.usecases.ports.clock import Clock
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.submitting.accept import Accept
from services.scheduler.usecases.submitting.needs import Needs

_ATTEMPTED = (JobStatus.SUCCEEDED, JobStatus.COMPLETED_WITH_FAILURES)
"""Every batch was attempted: what failed again is with that job."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Takes requests to run failed batches again."""

    ledger: Ledger
    objects: ObjectStore
    clock: Clock
    jobs: Jobs
    ids: JobIds
    traceparent: Callable[[], str]
    """The trace context of the request under way."""
    needs: Needs
    accept: Accept

    async def __call__(
        self, api_name: str, job_id: str, workers: int | None, request: RequestKey | None = None
    ) -> tuple[JobView, list[str]]:
        """Accept the new job, or find the one that the same request has become. It is on disk when this returns.

        Without `workers` it has as many as the old one. Also gives warnings, for people.

        Raises `CortexError`: `job.not_found`, `resources.api_not_deployed`, `job.job_is_in_progress`,
        `job.no_failed_batches`, `job.already_retried`, `job.items_not_readable`, `job.idempotency_key_reused`, and
        what `Needs.check` raises.
        """
        if workers is not None:
            check_workers(workers)
        old = (await self.jobs.view(api_name, job_id)).job
        if request is not None and (earlier := await self.ledger.requested(api_name, request)):
            return await self.jobs.view(api_name, earlier), []
        await self._check(old)
        api = await self.ledger.api(api_name)
        if api is None:
            raise api_not_deployed(api_name)
        first, left_out = await self._first_chunk(old)
        now_ns = self.clock.now_ns()
        new_id = self.ids.new(now_ns)
        spec = replace(
            old.spec,
            job_id=new_id,
            api_id=api.api_id,
            workers=old.spec.workers if workers is None else workers,
            created_ns=now_ns,
            traceparent=self.traceparent(),
            retry_of=job_id,
            source=None,
            options=_of_retry(old.spec.options, new_id, workers),
        )
        await self.needs.check(spec)
        view = await self.accept(
            spec, first.pieces, first.segments, first.cursor, request=request, earlier_retry=old.retried_by
        )
        warning = f"{left_out} failed batches are left out: their items cannot be read any more"
        return view, [warning] if left_out else []

    async def _first_chunk(self, old: JobRecord) -> tuple[Chunk, int]:
        """The first batches that can be read, and how many before them, and among them, cannot."""
        cursor, left_out = Cursor(), 0
        while True:
            chunk = await failed_batches(self.ledger, self.objects, old.spec, cursor)
            cursor, left_out = chunk.cursor, left_out + chunk.unreadable
            if chunk.segments:
                return chunk, left_out
            if cursor.done:
                text = f"the items of the failed batches of job {old.spec.job_id} cannot be read any more:"
                text += " the files they were in are gone or changed; submit the job again"
                raise CortexError("job.items_not_readable", text, Category.CONFLICT)

    async def _check(self, old: JobRecord) -> None:
        name = f"job {old.spec.job_id} of {old.spec.api_name}"
        if not old.state.status.final:
            text = f"{name} is not over yet: wait for its end, or stop it first"
            raise CortexError("job.job_is_in_progress", text, Category.CONFLICT)
        if not old.tally.batches_failed:
            raise CortexError("job.no_failed_batches", f"{name} has no failed batches to run again", Category.CONFLICT)
        if not old.retried_by:
            return
        later = await self.ledger.job(old.retried_by)
        if later is None or (later.state.status.final and later.state.status not in _ATTEMPTED):
            return  # it ended early: what it did not come to would be left behind
        todo = "retry that one for what failed again" if later.state.status.final else "wait for that one's end"
        text = f"{name} was retried already, as job {old.retried_by}: {todo}"
        raise CortexError("job.already_retried", text, Category.CONFLICT)


def _of_retry(options: Options, job_id: str, workers: int | None) -> Options:
    """The same, but for what the first job wrote to a store, which is not written over, and a number of workers."""
    if workers is not None:  # is meant as it is said, even if the first job's followed its batches
        options = replace(options, scaling=None)
    results = options.results
    return replace(options, results=Results(results.below(job_id))) if results and results.s3_path else options
