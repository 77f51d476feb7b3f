"""Makes the edge's bootstrap: `python -P -m services.gateway.envoy < settings.yaml > envoy.yaml`.

`cortex envoy-config` is the same with options.
"""

import sys

from services.common.settings import SettingsError
from services.gateway.envoy import bootstrap, settings


def main() -> int:
    """Read the settings, write the file; return the exit code."""
    try:
        found = settings.parse(sys.stdin.read())
    except SettingsError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # for the person at the terminal
        return 1
    sys.stdout.write(bootstrap.document(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
