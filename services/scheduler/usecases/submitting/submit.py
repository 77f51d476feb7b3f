"""Submitting a job: everything is checked before anything is stored."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from services.scheduler.domain.errors import api_not_deployed
from services.scheduler.domain.items import read_items
from services.scheduler.domain.job_id import JobIds
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.job import JobSpec, RequestKey
from services.scheduler.domain.partition import Partitioner
from services.scheduler.domain.submission import Submission, validate
from services.scheduler.usecases.input.selection import Selection
from services.scheduler.usecases.input.stream_source import StreamSource
from services.scheduler.usecases.ports.clock import Clock
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.submitting.accept import Accept
from services.scheduler.usecases.submitting.needs import Needs

FIRST_SEGMENTS = 64
"""Segments that are written with the job; the rest is split while work goes on."""
SMALL_INPUT_CHARACTERS = 64 * 1024
"""Read in less time than a thread takes to start."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Takes submissions."""

    ledger: Ledger
    objects: ObjectStore
    clock: Clock
    ids: JobIds
    traceparent: Callable[[], str]
    """The trace context of the request under way."""
    needs: Needs
    accept: Accept

    async def check(self, api_name: str, submission: Submission) -> AsyncGenerator[str, None]:
        """Say what is wrong with a submission, if anything, and store nothing. Gives the files that it means."""
        spec, _ = await self._prepare(api_name, submission)
        if spec.source is not None:
            async with aclosing(Selection(self.objects, spec.source).files()) as pages:
                async for _, page in pages:
                    for stored in page:
                        yield stored.uri

    async def __call__(
        self,
        api_name: str,
        submission: Submission,
        request: RequestKey | None = None,
        stream: StreamSource | None = None,
    ) -> JobView:
        """Accept a job, or find the one that the same request has become. It is on disk when this returns.

        `stream` brings the items, where the submission says so.
        """
        if request is not None and (earlier := await self.ledger.requested(api_name, request)):
            return await self.accept.jobs.view(api_name, earlier)  # also when its queue or files are away now
        spec, pieces = await self._prepare(api_name, submission)
        segments, cursor = _first_segments(spec.batch_size, pieces) if spec.source is None else ([], Cursor())
        return await self.accept(spec, pieces, segments, cursor, request=request, stream=stream)

    async def _prepare(self, api_name: str, submission: Submission) -> tuple[JobSpec, list[bytes]]:
        checked = validate(submission)
        api = await self.ledger.api(api_name)
        if api is None:
            raise api_not_deployed(api_name)
        pieces: list[bytes] = []
        if checked.source is None:
            pieces = await _read(checked.items_json, checked.batch_size)
        now_ns = self.clock.now_ns()
        spec = JobSpec(
            job_id=self.ids.new(now_ns),
            api_name=api.name,
            api_id=api.api_id,
            workers=checked.workers or 1,  # with `scaling` it is never looked at
            batch_size=checked.batch_size,
            config_json=checked.config_json,
            timeout_seconds=checked.timeout_seconds,
            batch_timeout_seconds=checked.batch_timeout_seconds,
            dead_letter_queue=checked.dead_letter_queue,
            created_ns=now_ns,
            traceparent=self.traceparent(),
            options=checked.options,
            source=checked.source,
        )
        await self.needs.check(spec)
        return spec, pieces


async def _read(items_json: str, batch_size: int) -> list[bytes]:
    if len(items_json) < SMALL_INPUT_CHARACTERS:
        return read_items(items_json, batch_size)
    # Hostile input takes a second; the jobs at work must not wait for it.
    return await asyncio.to_thread(read_items, items_json, batch_size)


def _first_segments(batch_size: int, pieces: list[bytes]) -> tuple[list[Segment], Cursor]:
    """Split the input from its start, as far as that goes into the job's first transaction."""
    partitioner = Partitioner(batch_size, Cursor())
    segments: list[Segment] = []
    for piece in pieces:
        segments += partitioner.feed(piece)
        if len(segments) >= FIRST_SEGMENTS:
            return segments, partitioner.cursor
    segments += partitioner.finish()
    return segments, partitioner.cursor
