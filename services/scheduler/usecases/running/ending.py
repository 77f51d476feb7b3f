"""How a job's work comes to an end: too many of its batches failed, or all are done, and what follows then.

Each of these gathers what failed and tells the job's life. When /on-job-complete is answered the results are written
to the store that the submission names, if it does, again and again until that is done.
"""

import logging
from collections.abc import Callable

from services.common.errors import CortexError
from services.scheduler.domain import lifecycle
from services.scheduler.domain.model.batch import BatchState
from services.scheduler.domain.model.job import Completion, JobSpec, JobStatus, Tally
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.running.surroundings import Surroundings

log = logging.getLogger(__name__)

PUBLISH_AGAIN_SECONDS = 5.0
"""Between two tries to write the results to their store, which may be large."""


class Ending:
    """The last things of one job."""

    def __init__(
        self,
        around: Surroundings,
        spec: JobSpec,
        tally: Callable[[], Tally],
        post: Callable[[lifecycle.Event], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._around = around
        self._spec = spec
        self._tally = tally
        self._post = post
        self._patience = Patience(
            spec.job_id, "its results cannot be written", on_trouble, pause_seconds=PUBLISH_AGAIN_SECONDS
        )

    @property
    def trouble(self) -> str:
        """Why the results cannot be written just now, for people; empty when all is well."""
        return self._patience.trouble

    async def completed(self, worker_id: str, completion: Completion) -> None:
        """The container answered /on-job-complete."""
        failed, example = await self._failures()
        now_ns = self._around.clock.now_ns()
        self._post(lifecycle.CompletionAnswered(worker_id, completion, failed, example, now_ns))

    async def publish(self) -> None:
        """Write the results: all that is left to do."""
        await self._patience(lambda: self._around.publish(self._spec))
        failed, example = await self._failures()
        self._post(lifecycle.Published(failed, example, self._around.clock.now_ns()))

    def too_many_failed(self, total: int) -> bool:
        """Whether more of the job's batches failed than may. `total`: all that it has."""
        percent = self._spec.options.max_failed_percent
        return percent is not None and self._tally().batches_failed * 100 > percent * total

    async def stop(self, total: int) -> None:
        """Too many have failed."""
        percent = self._spec.options.max_failed_percent
        failed, example = await self._failures()
        reason = f"{failed} of {total} batches failed, more than {percent:g} %"
        reason += f", such as {example}" if example else ""
        self._post(lifecycle.Ended(JobStatus.STOPPED, reason, self._around.clock.now_ns()))

    async def _failures(self) -> tuple[int, str]:
        """How many batches failed, and one of them, for people: the job's end does not wait for one that is unread."""
        failed = self._tally().batches_failed
        if not failed:
            return 0, ""
        try:
            [outcome] = await self._around.ledger.outcomes(self._spec.job_id, state=BatchState.FAILED, limit=1)
        except CortexError as error:
            log.error("job %s: its failed batches cannot be read: %s", self._spec.job_id, error.message)
            return failed, ""
        return failed, f"batch {outcome.index}: {outcome.error}"
