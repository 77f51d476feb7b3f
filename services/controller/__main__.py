"""`python -P -m services.controller`: mirror custom resources to the scheduler, until told to stop."""

import os
import sys

from services.common import lifecycle, logs
from services.common.errors import CortexError
from services.common.settings import Environment
from services.controller.settings import Settings
from services.controller.wiring import serve


def main() -> int:
    """The process. Returns its exit code."""
    try:
        settings = Settings.read(Environment(os.environ))
    except CortexError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # the log is not set up yet
        return 1
    logs.configure("cortex-controller", settings.log_level)
    return lifecycle.run(lambda stop: serve(settings, stop), settings.lifeline_fd)


if __name__ == "__main__":
    sys.exit(main())
