"""What a job needs beside its items and workers: files to read, a queue and a place to write to."""

import asyncio
from dataclasses import dataclass

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.item_stream import SourceKind
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.usecases.input.selection import Selection
from services.scheduler.usecases.output.publish import Publisher
from services.scheduler.usecases.ports.dead_letters import DeadLetterQueues
from services.scheduler.usecases.ports.objects import ObjectStore

LOOK_SECONDS = 40.0
"""For a look at the files, the queue and the place for results: less than a client waits for its answer."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Looks whether they are there, before a job is accepted."""

    objects: ObjectStore
    queues: DeadLetterQueues
    publisher: Publisher

    async def check(self, spec: JobSpec) -> None:
        """Raise `CortexError` when something is not there, or cannot be looked at in time."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._check(spec)
        except TimeoutError as error:
            text = (
                f"what the job needs (files, queue, place for results) could not be looked at in {LOOK_SECONDS:g} s, "
                "and there is no job: is the store away? Check the network and AWS_ENDPOINT_URL"
            )
            raise CortexError("aws.unreachable", text, Category.UNAVAILABLE) from error

    async def _check(self, spec: JobSpec) -> None:
        if spec.source is not None and spec.source.kind is not SourceKind.STREAM:
            await Selection(self.objects, spec.source).check()
        if spec.dead_letter_queue is not None:
            await self.queues.check(spec.dead_letter_queue.arn)
        await self.publisher.check(spec)
