"""Answering Prometheus, in a thread, and looking at the event loop once a second."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import start_http_server

from services.common.settings import SettingsError
from services.scheduler.adapters.metrics.series import Metrics

log = logging.getLogger(__name__)

PERIOD_S = 1.0


@asynccontextmanager
async def serving(address: str) -> AsyncIterator[Metrics]:
    """Answer at HOST:PORT with what is told to the result. Raises `SettingsError` when the address cannot be had."""
    metrics = Metrics()
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), metrics.registry)
    except (OSError, ValueError) as error:
        raise SettingsError(f"CORTEX_METRICS_ADDRESS must be a free HOST:PORT, not {address!r}: {error}") from error
    log.info("serving metrics on port %d", server.server_port)
    watching = asyncio.create_task(_watch(metrics), name="event loop lag")
    try:
        yield metrics
    finally:
        watching.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


async def _watch(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + PERIOD_S
        await asyncio.sleep(PERIOD_S)
        metrics.late(max(0.0, loop.time() - due))
