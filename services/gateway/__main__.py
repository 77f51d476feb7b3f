"""Runs the gateway: `python -P -m services.gateway`, configured by the environment as `settings.py` says."""

import logging
import os
import sys

from services.common import lifecycle, logs, telemetry
from services.common.errors import CortexError
from services.common.settings import Environment
from services.gateway import server, settings, wiring

log = logging.getLogger(__name__)


def main() -> int:
    """Run until told to stop; return the exit code."""
    try:
        configured = settings.read(Environment(os.environ))
    except CortexError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # this is the process's last word
        return 1
    logs.configure("cortex-gateway", configured.log_level)

    async def serve(stop: lifecycle.Stop) -> None:
        with server.listening(configured) as (sockets, address):
            public_url = configured.public_url or server.default_public_url(address)
            tracing = telemetry.start("cortex-gateway")
            async with wiring.connected(configured, tracing.tracer) as neighbours:
                app = wiring.app(neighbours, configured, public_url, tracing.tracer, stop)
                log.info("serving %s as %s", address.url, public_url)
                await server.serve(app, sockets, stop)
            if not stop.at_once:
                tracing.shutdown()

    return lifecycle.run(serve, configured.lifeline_fd)


if __name__ == "__main__":
    sys.exit(main())
