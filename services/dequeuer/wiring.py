"""The one place that chooses what a dequeuer is made of."""

import asyncio

from services.common.lifecycle import Stop
from services.common.telemetry import start
from services.dequeuer import pod
from services.dequeuer.external_pod import ExternalPod
from services.dequeuer.settings import Settings
from services.dequeuer.worker import Worker


async def run(settings: Settings, stop: Stop) -> int:
    """Run the worker; returns the process's exit code."""
    spec = settings.spec
    telemetry = start("cortex-dequeuer")
    containers = pod.create(spec) if spec.HasField("local") else ExternalPod(spec)
    try:
        async with asyncio.TaskGroup() as group:
            return await Worker(spec, containers, telemetry, group).run(stop)
    finally:
        if not stop.at_once:
            telemetry.shutdown()
