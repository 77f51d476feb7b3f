"""`python -m services.scheduler`: the scheduler as a process, configured by its environment."""

import os
import sys

from services.common import lifecycle, logs
from services.common.settings import SettingsError
from services.scheduler.settings import Settings


def main() -> int:
    """Run until told to stop; return the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    logs.configure("cortex-scheduler", settings.log_level)
    # Late: a mistake in the settings is told without waiting for gRPC to load.
    from services.scheduler.wiring import serve

    return lifecycle.run(lambda stop: serve(settings, stop), settings.lifeline_fd)


if __name__ == "__main__":
    sys.exit(main())
