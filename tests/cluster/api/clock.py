"""Times as the API writes them."""

from datetime import UTC, datetime


def now() -> str:
    """Seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_now() -> str:
    """Microseconds, as leases have them."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_since(timestamp: str) -> float:
    """How long ago that was."""
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()
