"""Time."""

from typing import Protocol


class Clock(Protocol):
    """Time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, by the machine's clock: for people."""

    def monotonic(self) -> float:
        """Seconds that never jump: for waiting."""
