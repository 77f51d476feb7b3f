"""The version of this distribution."""

from functools import cache


@cache
def version() -> str:
    """Such as `0.1.0`, as it is installed."""
    from importlib import metadata

    return metadata.version("cortex-batch")
