"""`python -P -m services.collector`: receive this machine's spans and serve its traces, until told to stop."""

import logging
import os
import sys

import grpc

from services.collector import api
from services.collector.archive import Archive
from services.collector.settings import Settings
from services.collector.store import Store
from services.common import lifecycle, logs
from services.common.errors import Category, CortexError
from services.common.settings import Environment

log = logging.getLogger(__name__)

DRAIN_S = 1.0
"""Calls that are being answered at the end get so long."""


async def serve(settings: Settings, stop: lifecycle.Stop) -> None:
    """Serve until `stop`. Raises `CortexError` when an address cannot be had."""
    archive = Archive(Store(settings.data_dir / "traces.db"))
    server = api.server(archive)
    if settings.socket is not None:
        settings.socket.unlink(missing_ok=True)
        _listen(server, f"unix:{settings.socket}")
    if settings.address is not None:
        _listen(server, settings.address)
    if settings.port:
        _listen(server, f"127.0.0.1:{settings.port}")
    await server.start()
    log.info("taking spans at %s", settings.socket or settings.address)
    await stop.wait()
    await server.stop(None if stop.at_once else DRAIN_S)
    await archive.close()


def _listen(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        message = f"the collector cannot listen at {address}: is it taken, or its path too long or missing?"
        raise CortexError("collector.address_unusable", message, Category.CONFLICT) from error


def main() -> int:
    """The process. Returns its exit code."""
    try:
        settings = Settings.read(Environment(os.environ))
    except CortexError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # the log is not set up yet
        return 1
    logs.configure("cortex-collector", settings.log_level)
    return lifecycle.run(lambda stop: serve(settings, stop), settings.lifeline_fd)


if __name__ == "__main__":
    sys.exit(main())
