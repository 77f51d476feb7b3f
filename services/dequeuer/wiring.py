"""The one place that chooses what a dequeuer is made of."""

import asyncio
import logging
from collections.abc import Mapping

from services.common import exit_codes
from services.common.lifecycle import Stop
from services.common.telemetry import start
from services.dequeuer import pod
from services.dequeuer.external_pod import ExternalPod
from services.dequeuer.job_spec_parts import keep
from services.dequeuer.settings import Settings
from services.dequeuer.worker import Worker

log = logging.getLogger(__name__)


async def run(settings: Settings, environ: Mapping[str, str], stop: Stop) -> int:
    """Run the worker; returns the process's exit code. Containers inherit `environ`, where they run here."""
    spec = settings.spec
    telemetry = start("cortex-dequeuer")
    containers = pod.create(spec, environ) if spec.HasField("local") else ExternalPod(spec)
    document = settings.document
    keeping = asyncio.create_task(keep(document.parts, document.directory)) if document is not None else None
    try:
        async with asyncio.TaskGroup() as group:
            return await Worker(spec, containers, telemetry, group).run(stop)
    except ExceptionGroup:
        log.exception("the dequeuer failed")
        return exit_codes.FAILED
    finally:
        if keeping is not None:
            keeping.cancel()
        if not stop.at_once:
            telemetry.shutdown()
