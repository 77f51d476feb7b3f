"""The composition root: the only place that chooses adapters and puts the parts together."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.context import get_current

from cortex.batch.v1 import (
    batch_service_pb2,
    batch_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from services.common.errors import CortexError
from services.common.grpc_errors import ErrorInterceptor
from services.common.lifecycle import Stop
from services.common.names import CHANNEL_OPTIONS
from services.common.telemetry import Telemetry, TracingServerInterceptor, new_traceparent, start, traceparent
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.aws.sqs import SqsQueues
from services.scheduler.adapters.clock import SystemClock
from services.scheduler.adapters.job_trace import OtelJobTrace
from services.scheduler.adapters.local_workers import LocalWorkerDriver, LocalWorkerSettings
from services.scheduler.adapters.log_files import LogFiles
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.adapters.sqlite.ledger import SqliteLedger
from services.scheduler.adapters.tokens import JwtTokens
from services.scheduler.adapters.webhook_sender import HttpWebhookSender
from services.scheduler.api.batch_servicer import BatchServicer
from services.scheduler.api.worker_servicer import WorkerServicer
from services.scheduler.domain.job_document import job_document
from services.scheduler.domain.job_id import JobIds
from services.scheduler.settings import Settings
from services.scheduler.usecases.apis import Apis
from services.scheduler.usecases.deploy import Deploy
from services.scheduler.usecases.output.batch_pages import BatchPages
from services.scheduler.usecases.output.publish import Publisher
from services.scheduler.usecases.output.results import TailResults
from services.scheduler.usecases.ports.dead_letters import DeadLetterQueues
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.ports.workers import WorkerDriver
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.submitting.accept import Accept
from services.scheduler.usecases.submitting.needs import Needs
from services.scheduler.usecases.submitting.retry import Retry
from services.scheduler.usecases.submitting.submit import Submit
from services.scheduler.usecases.submitting.submit_stream import SubmitStream
from services.scheduler.usecases.webhooks import Webhooks

log = logging.getLogger(__name__)

SERVICES = (
    batch_service_pb2.DESCRIPTOR.services_by_name["BatchService"].full_name,
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name,
)
SERVER_OPTIONS = (
    *CHANNEL_OPTIONS,
    # Clients may ask for signs of life as often as every ten seconds, also between calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def serve(settings: Settings, environ: Mapping[str, str], stop: Stop) -> None:
    """Run the scheduler until it is told to stop. Local workers inherit `environ`."""
    telemetry = start("cortex-scheduler")
    ledger = await SqliteLedger.open(settings.data_dir / "ledger.db")
    aws = AwsSession(environ)
    try:
        objects = ObjectStores(aws, settings.input_roots)
        driver = LocalWorkerDriver(_driver_settings(settings), environ)
        scheduler = await Scheduler.build(settings, ledger, driver, SqsQueues(aws), telemetry, objects)
        await scheduler.run(stop)
    finally:
        await aws.close()
        await ledger.close()
        telemetry.shutdown()


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The parts, put together and not yet started."""

    jobs: Jobs
    webhooks: Webhooks
    server: grpc.aio.Server
    health: health.aio.HealthServicer
    port: int
    """The TCP port of the gRPC services."""
    drain_seconds: float

    @classmethod
    async def build(
        cls,
        settings: Settings,
        ledger: Ledger,
        driver: WorkerDriver,
        queues: DeadLetterQueues,
        telemetry: Telemetry,
        objects: ObjectStore,
    ) -> Self:
        """Put the parts together and bind the addresses. Raises `CortexError` when one is taken."""
        publisher = Publisher(ledger, objects)
        clock, tokens = SystemClock(), JwtTokens(ledger.secret)
        webhooks = Webhooks(ledger, clock, HttpWebhookSender())
        around = Surroundings(
            ledger=ledger,
            objects=objects,
            driver=driver,
            queues=queues,
            clock=clock,
            trace=partial(OtelJobTrace, telemetry),
            token=tokens.sign,
            job_document=job_document,
            on_over=webhooks.wake,
            publish=publisher,
            reconnect_grace_seconds=settings.reconnect_grace_seconds,
            startup_deadline_seconds=settings.startup_deadline_seconds,
        )
        jobs = Jobs(around)
        newest = await ledger.jobs(limit=1)
        ids = JobIds(newest[0].spec.job_id if newest else "")
        accept = Accept(ledger, jobs, around.trace)
        needs = Needs(objects, queues, publisher)
        submit = Submit(ledger, objects, clock, ids, _request_traceparent, needs, accept)
        retry = Retry(ledger, objects, clock, jobs, ids, _request_traceparent, needs, accept)
        server = grpc.aio.server(
            interceptors=[TracingServerInterceptor(telemetry.tracer), ErrorInterceptor()], options=SERVER_OPTIONS
        )
        batch = BatchServicer(
            Apis(ledger, jobs),
            jobs,
            Deploy(ledger, clock, settings.node_groups),
            submit,
            SubmitStream(submit, ledger, jobs),
            retry,
            BatchPages(ledger, objects, jobs),
            TailResults(ledger, objects, jobs),
            LogFiles(settings.data_dir / "logs"),
        )
        batch_service_pb2_grpc.add_BatchServiceServicer_to_server(batch, server)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(jobs, tokens), server)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return cls(jobs, webhooks, server, healthy, _listen(server, settings), settings.drain_seconds)

    async def run(self, stop: Stop) -> None:
        """Serve until told to stop; then let the workers finish or hand back what they hold."""
        # Jobs first: a worker that returns at once must find its job.
        await self.jobs.resume()
        await self.server.start()
        webhooks = asyncio.create_task(self.webhooks.run(), name="webhooks")
        try:
            await self._serve(stop)
        finally:
            webhooks.cancel()

    async def _serve(self, stop: Stop) -> None:
        for name in ("", *SERVICES):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving gRPC on port %d", self.port)
        await stop.wait()
        if stop.at_once:
            await self.jobs.close(None)
            await self.server.stop(grace=None)
            return
        await self.health.enter_graceful_shutdown()
        await self.jobs.close(self.drain_seconds)
        await self.server.stop(grace=0.5)


def _request_traceparent() -> str:
    return traceparent(get_current()) or new_traceparent()


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    try:
        port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError as error:
        raise CortexError(
            "system.address_in_use", f"cannot listen on {settings.grpc_address}: is the port in use?"
        ) from error
    if settings.scheduler_socket is not None:
        Path(settings.scheduler_socket).unlink(missing_ok=True)  # left by a predecessor that was killed
        try:
            server.add_insecure_port(f"unix:{settings.scheduler_socket}")
        except RuntimeError as error:
            raise CortexError(
                "system.cannot_listen", f"cannot make the unix socket {settings.scheduler_socket}: {error}"
            ) from error
    return port


def _driver_settings(settings: Settings) -> LocalWorkerSettings:
    return LocalWorkerSettings(
        data_dir=settings.data_dir,
        scheduler_address=f"unix:{settings.scheduler_socket}" if settings.scheduler_socket else settings.grpc_address,
        public_url=settings.public_url,
        http_socket=settings.http_socket,
        collector_socket=settings.collector_socket,
        collector_port=settings.collector_port,
        working_dir=settings.working_dir,
        lifeline_fd=settings.lifeline_fd,
    )
