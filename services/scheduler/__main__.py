"""`python -m services.scheduler`: the scheduler as a process, configured by its environment."""

import os
import sys

from services.common import lifecycle, logs
from services.common.names import GRPC_VARIABLES
from services.common.settings import SettingsError
from services.scheduler.settings import Settings


def main() -> int:
    """Run until told to stop; return the exit code."""
    environ = dict(os.environ)
    try:
        settings = Settings.from_environment(environ)
    except SettingsError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    logs.configure("cortex-scheduler", settings.log_level)
    os.environ.update(GRPC_VARIABLES | environ)
    # Late: gRPC reads the variables, and a mistake in the settings is told without waiting for it to load.
    from services.scheduler.wiring import serve

    return lifecycle.run(lambda stop: serve(settings, environ, stop), settings.lifeline_fd, for_throughput=True)


if __name__ == "__main__":
    sys.exit(main())
