"""About the gateway itself: health, metrics, documentation."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.common.errors import Category, CortexError
from services.gateway.answers import as_json
from services.gateway.documents import Documents
from services.gateway.metrics import JobSeries, RequestMetrics
from services.gateway.scheduler import Scheduler


@dataclass(frozen=True)
class System:
    """Handlers."""

    scheduler: Scheduler
    request_metrics: RequestMetrics
    job_series: JobSeries
    documents: Documents

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/healthz", _alive),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
        ]

    async def ready(self, _request: Request) -> Response:
        """Whether submissions would be taken."""
        if await self.scheduler.healthy():
            return as_json({"status": "ready"})
        message = "the scheduler does not say that it serves: see its log"
        raise CortexError("system.unavailable", message, Category.UNAVAILABLE)

    async def metrics(self, _request: Request) -> Response:
        """Prometheus's text format. While the scheduler is away, the gateway's own series alone."""
        try:
            jobs, up = await self.job_series.text(), 1
        except CortexError as error:
            if error.category is not Category.UNAVAILABLE:
                raise
            jobs, up = "", 0
        about = "# HELP cortex_gateway_scheduler_up Whether the scheduler answered.\n"
        kind = "# TYPE cortex_gateway_scheduler_up gauge\n"
        own = f"{about}{kind}cortex_gateway_scheduler_up {up}\n".encode()
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(jobs.encode() + own + self.request_metrics.text(), media_type=media_type)

    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI document."""
        return Response(self.documents.openapi(), media_type="application/json")

    async def docs(self, _request: Request) -> Response:
        """The same for people. Allowed to run its own script and nothing else."""
        page = self.documents.page()
        headers = {"Content-Security-Policy": page.policy}
        return Response(page.html, media_type="text/html; charset=utf-8", headers=headers)


async def _alive(_request: Request) -> Response:
    return as_json({"status": "alive"})
