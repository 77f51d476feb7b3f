"""The composition root: the only place that chooses adapters (workers': `worker_wiring`) and puts parts together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from opentelemetry.context import get_current

from services.common.errors import CortexError
from services.common.lifecycle import Stop, end_at_once
from services.common.telemetry import Telemetry, new_traceparent, start, traceparent
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.aws.sqs import SqsQueues
from services.scheduler.adapters.clock import SystemClock
from services.scheduler.adapters.job_trace import OtelJobTrace
from services.scheduler.adapters.ledger.engine import Engine
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.adapters.ledger.writer import tell_nobody
from services.scheduler.adapters.log_files import LogFiles
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.adapters.tokens import JwtTokens
from services.scheduler.adapters.webhook_sender import HttpWebhookSender
from services.scheduler.api.batch_servicer import BatchServicer
from services.scheduler.api.server import Server
from services.scheduler.api.worker_servicer import WorkerServicer
from services.scheduler.domain.job_document import job_document
from services.scheduler.domain.job_id import JobIds
from services.scheduler.settings import LEDGER_VARIABLE, Settings
from services.scheduler.usecases.apis import Apis
from services.scheduler.usecases.deploy import Deploy
from services.scheduler.usecases.output.batch_pages import BatchPages
from services.scheduler.usecases.output.publish import Publisher
from services.scheduler.usecases.output.results import TailResults
from services.scheduler.usecases.ports.dead_letters import DeadLetterQueues
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.logs import LogReader
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
from services.scheduler.worker_wiring import workers

if TYPE_CHECKING:
    from services.scheduler.adapters.metrics.series import Metrics

log = logging.getLogger(__name__)


async def serve(settings: Settings, environ: Mapping[str, str], stop: Stop) -> None:
    """Run the scheduler until it is told to stop. Local workers inherit `environ`."""
    telemetry = start("cortex-scheduler")
    environ = {name: value for name, value in environ.items() if name != LEDGER_VARIABLE}  # may hold a password
    try:
        async with _measured(settings.metrics_address) as metrics:
            observed = Observed(telemetry, metrics)
            if settings.lease is None:
                await _lead(settings, environ, observed, stop)
            else:
                await _stand_by(settings, settings.lease, environ, observed, stop)
    finally:
        telemetry.shutdown()


@dataclass(frozen=True, slots=True)
class Observed:
    """Who watches a scheduler."""

    telemetry: Telemetry
    metrics: "Metrics | None" = None


@asynccontextmanager
async def _measured(address: str | None) -> "AsyncIterator[Metrics | None]":
    if address is None:
        yield None
        return
    # Late: Prometheus' library takes time and memory, which one machine saves.
    from services.scheduler.adapters.metrics.server import serving

    async with serving(address) as metrics:
        yield metrics


async def _stand_by(settings: Settings, lease: str, environ: Mapping[str, str], observed: Observed, stop: Stop) -> None:
    """Answer questions about health until this replica is elected; then lead.

    Only the leader opens the ledger, which fences whoever led before. Workers are left alone at every end: they go on
    by themselves, and come to the next leader.
    """
    # Late: Kubernetes' library takes a second and 40 MiB, which one machine saves.
    from services.common.kubernetes.leadership import leadership

    server = Server(settings.grpc_address, settings.scheduler_socket, observed.telemetry.tracer)
    await server.start()
    log.info("serving health on port %d", server.port)
    try:
        async with leadership(environ, lease, settings.identity, settings.lease_seconds, stop) as leads:
            if leads:
                await _lead(settings, environ, observed, stop, server)
    finally:
        await server.stop(None)


async def _lead(
    settings: Settings, environ: Mapping[str, str], observed: Observed, stop: Stop, server: Server | None = None
) -> None:
    """Be the scheduler."""
    on_commit = observed.metrics.committed if observed.metrics is not None else tell_nobody
    ledger = await SqlLedger.open(_ledger_engine(settings), on_commit, end_at_once)
    aws = AwsSession(environ)
    try:
        objects = ObjectStores(aws, settings.input_roots)
        async with workers(settings, environ, ledger) as runtime:
            scheduler = await Scheduler.build(
                settings, ledger, runtime.driver, SqsQueues(aws), observed, objects, server, runtime.logs
            )
            if observed.metrics is not None:
                observed.metrics.lead(scheduler.jobs.at_work)
            await scheduler.run(stop)
    finally:
        await aws.close()
        await ledger.close()


def _ledger_engine(settings: Settings) -> Engine:
    if settings.ledger is None:
        return SqliteEngine(settings.data_dir / "ledger.db")
    try:
        # Late: only who keeps the ledger in PostgreSQL needs its library.
        from services.scheduler.adapters.ledger.postgresql.engine import PostgresEngine
    except ModuleNotFoundError as error:
        message = f"a ledger in PostgreSQL needs {error.name}: pip install 'cortex-batch[postgres]'"
        raise CortexError("system.not_installed", message) from error
    return PostgresEngine(settings.ledger, take_over=settings.lease is not None)


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The parts, put together and not yet started."""

    jobs: Jobs
    webhooks: Webhooks
    batch: BatchServicer
    worker: WorkerServicer
    server: Server
    drain_seconds: float | None
    """At the end, batches in containers may go on for so long. None: workers go on by themselves."""

    @classmethod
    async def build(
        cls,
        settings: Settings,
        ledger: Ledger,
        driver: WorkerDriver,
        queues: DeadLetterQueues,
        observed: Observed,
        objects: ObjectStore,
        server: Server | None = None,
        logs: LogReader | None = None,
    ) -> Self:
        """Put the parts together. Without a `server`, bind the addresses; raises `CortexError` when one is taken.

        Without `logs`, the workers' output is in files.
        """
        publisher = Publisher(ledger, objects)
        clock, tokens = SystemClock(), JwtTokens(ledger.secret)
        webhooks = Webhooks(ledger, clock, HttpWebhookSender())
        around = Surroundings(
            ledger=ledger,
            objects=objects,
            driver=driver,
            queues=queues,
            clock=clock,
            trace=partial(
                observed.metrics.job_trace if observed.metrics is not None else OtelJobTrace, observed.telemetry
            ),
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
        batch = BatchServicer(
            Apis(ledger, jobs),
            jobs,
            Deploy(ledger, clock, settings.node_groups, driver.check),
            submit,
            SubmitStream(submit, ledger, jobs),
            retry,
            BatchPages(ledger, objects, jobs),
            TailResults(ledger, objects, jobs),
            logs or LogFiles(settings.data_dir / "logs"),
        )
        server = server or Server(settings.grpc_address, settings.scheduler_socket, observed.telemetry.tracer)
        drain_seconds = settings.drain_seconds if settings.lease is None else None
        return cls(jobs, webhooks, batch, WorkerServicer(jobs, tokens), server, drain_seconds)

    async def run(self, stop: Stop) -> None:
        """Serve until told to stop; then let the workers finish or hand back what they hold."""
        try:
            await self._serve(stop)
        except BaseException:
            await self.jobs.close(None)  # else they would end for want of a ledger, and their workers with them
            raise

    async def _serve(self, stop: Stop) -> None:
        # Jobs first: a worker that returns at once must find its job.
        await self.jobs.resume()
        await self.server.serve(self.batch, self.worker)
        log.info("serving gRPC on port %d", self.server.port)
        webhooks = asyncio.create_task(self.webhooks.run(), name="webhooks")
        try:
            await stop.wait()
            await self._end(at_once=stop.at_once)
        finally:
            webhooks.cancel()

    async def _end(self, *, at_once: bool) -> None:
        if not at_once:
            await self.server.drain()
        await self.jobs.close(None if at_once else self.drain_seconds)
        await self.server.stop(None if at_once else 0.5)


def _request_traceparent() -> str:
    return traceparent(get_current()) or new_traceparent()
