"""What became of a job's batches, as lines for programs: the containers' replies, and the failed batches."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cortex.batch.v1.batch_service_pb2 import TailResultsRequest
from cortex.batch.v1.resources_pb2 import Batch
from services.gateway import job_json, problems
from services.gateway.answers import Records
from services.gateway.routes import query
from services.gateway.scheduler import Scheduler

_INDEX = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Results:
    """Handlers."""

    scheduler: Scheduler
    stopping: asyncio.Event

    def routes(self) -> list[Route]:
        """Below `/batch/<api_name>/<job_id>`."""
        return [
            Route("/batch/{api_name}/{job_id}/results", self.results),
            Route("/batch/{api_name}/{job_id}/errors", self.errors),
        ]

    async def results(self, request: Request) -> Response:
        """The replies to the batches that succeeded."""
        return Records(self._pages(_wanted(request, failed=False), job_json.reply), self.stopping)

    async def errors(self, request: Request) -> Response:
        """The batches that failed."""
        return Records(self._pages(_wanted(request, failed=True), job_json.batch), self.stopping)

    async def _pages(
        self, wanted: TailResultsRequest, record: Callable[[Batch], dict[str, Any]]
    ) -> AsyncIterator[Iterable[dict[str, Any]]]:
        async with aclosing(self.scheduler.results(wanted)) as pages:
            async for batches in pages:
                yield map(record, batches)


def _wanted(request: Request, *, failed: bool) -> TailResultsRequest:
    first = query.text(request, "first")
    if first and not _INDEX.fullmatch(first):
        raise problems.bad_query("first", first, "the index of a batch, a whole number from 0")
    return TailResultsRequest(
        api_name=request.path_params["api_name"],
        job_id=request.path_params["job_id"],
        failed=failed,
        follow=query.flag(request, "follow"),
        first_index=int(first or 0),
    )
