"""The controller put together."""

import asyncio
import logging
import os

from services.common.channels import open_channel
from services.common.kubernetes import BATCH_APIS, BATCH_JOBS, Cluster
from services.common.kubernetes.leadership import leadership
from services.common.lifecycle import Stop
from services.common.names import CHANNEL_OPTIONS
from services.common.telemetry import Telemetry, client_interceptors, start
from services.controller.batch_apis import BatchApis
from services.controller.batch_jobs import BatchJobs
from services.controller.health import Health
from services.controller.mirror import Mirror
from services.controller.resources import Writer
from services.controller.scheduler import Scheduler
from services.controller.settings import Settings
from services.controller.webhook_secrets import WebhookSecrets

log = logging.getLogger(__name__)

OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


async def serve(settings: Settings, stop: Stop) -> None:
    """Mirror until told to stop. Raises `CortexError` when there is no cluster."""
    telemetry = start("cortex-controller")
    health = Health(settings.health_address)
    await health.start()
    log.info("serving health on port %d", health.port)
    try:
        if settings.lease is None:
            await _lead(settings, telemetry, health, stop)
        else:
            name, seconds = settings.identity, settings.lease_seconds
            async with leadership(os.environ, settings.lease, name, seconds, stop) as leads:
                if leads:
                    await _lead(settings, telemetry, health, stop)
    finally:
        await health.stop()
        if not stop.at_once:
            telemetry.shutdown()


async def _lead(settings: Settings, telemetry: Telemetry, health: Health, stop: Stop) -> None:
    cluster = await Cluster.connect(os.environ)
    interceptors = client_interceptors(telemetry.tracer)
    try:
        async with open_channel(settings.scheduler, OPTIONS, interceptors) as channel:
            await _mirror(_mirrors(settings, cluster, Scheduler(channel)), health, stop)
    finally:
        await cluster.close()


def _mirrors(settings: Settings, cluster: Cluster, scheduler: Scheduler) -> list[Mirror]:
    namespace = None if settings.all_namespaces else cluster.namespace
    apis = BatchApis(scheduler, Writer(cluster, BATCH_APIS))
    jobs = BatchJobs(scheduler, Writer(cluster, BATCH_JOBS), WebhookSecrets(cluster))
    return [Mirror(cluster, BATCH_APIS, namespace, apis.keep), Mirror(cluster, BATCH_JOBS, namespace, jobs.keep)]


async def _mirror(mirrors: list[Mirror], health: Health, stop: Stop) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(mirror.run(), name="mirror") for mirror in mirrors]
        running.append(tasks.create_task(health.when_listed(*mirrors), name="health"))
        await stop.wait()
        for task in running:
            task.cancel()
