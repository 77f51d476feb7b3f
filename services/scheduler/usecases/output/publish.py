"""Writes a job's results to the store that its submission names, once all of them are known.

Two objects: `<s3_path>/results.ndjson`, the replies, and `<s3_path>/errors.ndjson`, the failed batches, both in the
batches' order and as the gateway tells them. Each is written in one go from the ledger, in constant memory. Writing
them again, after a restart in the middle, gives the same.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.common.batch_document import batch_document, line, reply_document
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.usecases.output.batch_pages import BatchView
from services.scheduler.usecases.output.results import ResultPages
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore

RESULTS_NAME = "results.ndjson"
ERRORS_NAME = "errors.ndjson"


@dataclass(frozen=True, slots=True)
class Publisher:
    """See the module's text."""

    ledger: Ledger
    objects: ObjectStore

    async def check(self, job: JobSpec) -> None:
        """Before the job is accepted: raise `CortexError` when its results could not be written."""
        if (results := job.published) is not None:
            await self.objects.check_writable(results.below(""))

    async def __call__(self, job: JobSpec) -> None:
        """Write the objects, if the job wants that. Raises `CortexError` when one cannot be written now."""
        if (results := job.published) is not None:
            pages, store = ResultPages(self.ledger, self.objects), self.objects
            await store.write(results.below(RESULTS_NAME), _lines(pages.replies(job.job_id), _reply))
            await store.write(results.below(ERRORS_NAME), _lines(pages.failed(job), _failed))


async def _lines(
    pages: AsyncIterator[list[BatchView]], document: Callable[[BatchView], dict[str, Any]]
) -> AsyncIterator[bytes]:
    async with aclosing(pages) as found:  # type: ignore[type-var]  # it is a generator
        async for page in found:
            yield b"".join(line(document(batch)) for batch in page)


def _reply(batch: BatchView) -> dict[str, Any]:
    return reply_document(batch.index, batch.reply)


def _failed(batch: BatchView) -> dict[str, Any]:
    return batch_document(
        index=batch.index,
        state=batch.state.value,
        attempts=batch.attempts,
        http_status=batch.http_status,
        error=batch.error,
        ended_ns=batch.ended_ns,
        items=batch.items,
    )
