"""The machine's clocks."""

import time


class SystemClock:
    """Time as the machine tells it."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()
