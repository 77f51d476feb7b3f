"""What a job left behind for people: its containers' output, and its trace."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cortex.batch.v1.batch_service_pb2 import TailLogsRequest
from cortex.batch.v1.resources_pb2 import BatchApi
from cortex.batch.v1.trace_service_pb2 import Span
from services.common import logs
from services.common.errors import Category, CortexError
from services.gateway.answers import Lines, as_json
from services.gateway.collector import Collector
from services.gateway.routes import query
from services.gateway.scheduler import Scheduler


@dataclass(frozen=True)
class JobOutput:
    """Handlers."""

    scheduler: Scheduler
    collector: Collector
    stopping: asyncio.Event

    def routes(self) -> list[Route]:
        """Below `/batch/<api_name>/<job_id>`."""
        return [
            Route("/batch/{api_name}/{job_id}/logs", self.logs),
            Route("/batch/{api_name}/{job_id}/trace", self.trace),
        ]

    async def logs(self, request: Request) -> Response:
        """Log lines; with `follow=true` until the job is over."""
        api_name, job_id = request.path_params["api_name"], request.path_params["job_id"]
        follow = query.flag(request, "follow")
        api = (await self.scheduler.job(api_name, job_id)).api  # a job that is not there is an error, not an empty log
        wanted = TailLogsRequest(api_name=api_name, job_id=job_id, follow=follow)
        return Lines(self._lines(wanted, api), self.stopping)

    async def _lines(self, wanted: TailLogsRequest, api: BatchApi) -> AsyncIterator[dict[str, Any]]:
        labels = logs.labels(wanted.api_name, api.api_id, wanted.job_id)["labels"]
        async for line in self.scheduler.logs(wanted):
            yield {
                "time": line.time.ToJsonString(),
                "worker": line.worker,
                "container": line.container,
                "message": line.message,
                "cortex.labels": labels,
            }

    async def trace(self, request: Request) -> Response:
        """The spans of a job's trace, oldest first."""
        job = (await self.scheduler.job(request.path_params["api_name"], request.path_params["job_id"])).job
        if not job.trace_id:
            raise CortexError("trace.not_kept", f"job {job.job_id} was not traced", Category.NOT_FOUND)
        found = await self.collector.trace(job.trace_id)
        spans = [_span(span) for span in found.spans]
        return as_json({"trace_id": job.trace_id, "spans": spans, "dropped_spans": found.dropped_spans})


def _span(span: Span) -> dict[str, Any]:
    return {
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "service": span.service_name,
        "start_unix_nano": span.start_unix_nano,
        "end_unix_nano": span.end_unix_nano,
        "attributes": dict(span.attributes),
        "error": span.error,
        "status_message": span.status_message,
    }
