"""The gateway put together: the only place that chooses what is used for what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urlsplit

import grpc
from opentelemetry.trace import Tracer
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common.channels import has_replicas, open_channel
from services.common.telemetry import client_interceptors
from services.gateway.admission import Admission
from services.gateway.aws_identity import AwsIdentities
from services.gateway.collector import Collector
from services.gateway.documents import Documents
from services.gateway.guards import Guards
from services.gateway.metrics import JobSeries, RequestMetrics
from services.gateway.observe import Observe
from services.gateway.routes.batch import METHODS, Batch
from services.gateway.routes.failures import Failures
from services.gateway.routes.job_output import JobOutput
from services.gateway.routes.operator import Operator
from services.gateway.routes.operator_logs import OperatorLogs
from services.gateway.routes.results import Results
from services.gateway.routes.system import System
from services.gateway.routing import Routing
from services.gateway.scheduler import OPTIONS, Scheduler
from services.gateway.settings import Settings


@dataclass(frozen=True)
class Neighbours:
    """The services behind the gateway."""

    scheduler: Scheduler
    collector: Collector


@asynccontextmanager
async def connected(settings: Settings, tracer: Tracer) -> AsyncIterator[Neighbours]:
    """Channels to the neighbours. They connect when they are first used, and again whenever they must."""
    async with AsyncExitStack() as channels:

        async def channel(target: str) -> grpc.aio.Channel:
            interceptors = client_interceptors(tracer)
            return await channels.enter_async_context(open_channel(target, OPTIONS, interceptors))

        yield Neighbours(
            Scheduler(await channel(settings.scheduler), replicated=has_replicas(settings.scheduler)),
            Collector(await channel(settings.collector) if settings.collector else None),
        )


def routing(
    neighbours: Neighbours, settings: Settings, public_url: str, metrics: RequestMetrics, stopping: asyncio.Event
) -> Routing:
    """All routes."""
    scheduler, ours = neighbours.scheduler, version("cortex-batch")
    admission = Admission(ours, AwsIdentities(settings.aws_auth) if settings.aws_auth is not None else None)
    batch = Batch(scheduler, public_url, stopping)
    return Routing(
        [
            *batch.routes(),
            *JobOutput(scheduler, neighbours.collector, stopping).routes(),
            *Failures(scheduler).routes(),
            *Results(scheduler, stopping).routes(),
            *Operator(scheduler, public_url, admission).routes(),
            *OperatorLogs(scheduler, public_url, admission, stopping).routes(),
            *System(scheduler, metrics, JobSeries(scheduler), Documents(public_url, ours)).routes(),
        ],
        endpoints=Route("/{endpoint:path}", batch.by_endpoint, methods=METHODS),
    )


def app(
    neighbours: Neighbours, settings: Settings, public_url: str, tracer: Tracer, stopping: asyncio.Event
) -> ASGIApp:
    """The whole application."""
    metrics = RequestMetrics()
    names = {settings.address.host, urlsplit(public_url).hostname or ""}
    routes = routing(neighbours, settings, public_url, metrics, stopping)
    guarded = Guards(routes, None if settings.insecure else names)
    return Observe(guarded, tracer, metrics)
