"""The last step of accepting a job: stored before it is acknowledged, and run."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece
from services.scheduler.domain.model.job import JobRecord, JobSpec, JobState, JobStatus, RequestKey, Tally
from services.scheduler.usecases.input.stream_source import StreamSource
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.jobs import Jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accept:
    """Takes what was checked."""

    ledger: Ledger
    jobs: Jobs
    trace: Callable[[JobRecord], JobTrace]

    async def __call__(
        self,
        spec: JobSpec,
        pieces: Sequence[Piece],
        segments: Sequence[Segment],
        cursor: Cursor,
        *,
        request: RequestKey | None = None,
        earlier_retry: str = "",
        stream: StreamSource | None = None,
    ) -> JobView:
        """Store a job and run it: both or, when it cannot be stored, neither. For the arguments see `Ledger.add_job`.

        `stream` brings the items of a job whose source is one.

        It is done to the end, also when the client that asked for it goes away.
        """
        return await self.jobs.to_the_end(self._accept(spec, pieces, segments, cursor, request, earlier_retry, stream))

    async def _accept(
        self,
        spec: JobSpec,
        pieces: Sequence[Piece],
        segments: Sequence[Segment],
        cursor: Cursor,
        request: RequestKey | None,
        earlier_retry: str,
        stream: StreamSource | None,
    ) -> JobView:
        state = JobState(JobStatus.ENQUEUING)
        job_id = await self.ledger.add_job(spec, state, pieces, segments, cursor, request, earlier_retry=earlier_retry)
        if job_id != spec.job_id:
            return await self.jobs.view(spec.api_name, job_id)
        log.info("accepted job %s of %s", spec.job_id, spec.api_name)
        job = JobRecord(spec, state, Tally(), cursor, 0)
        self.trace(job).accepted(cursor.next_index)
        await self.jobs.start(job, resumed=False, stream=stream)
        if await self.ledger.api(spec.api_name) is None:
            await self.jobs.stop_all(spec.api_name)  # deleted while this was accepted
        return await self.jobs.view(spec.api_name, spec.job_id)
