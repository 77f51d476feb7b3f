"""Job ids: 16 lowercase hexadecimal digits of `2^63 - 1 - now in nanoseconds`, so that newer jobs sort first.

Submissions may come faster than the clock ticks, and clocks are set back. An id is then one below the last one.
"""

_LATEST = 2**63 - 1


class JobIds:
    """Makes ids, each below all that it knows of: those it made, and the newest from before."""

    def __init__(self, newest: str = "") -> None:
        self._last = int(newest, 16) if newest else _LATEST + 1

    def new(self, now_ns: int) -> str:
        """The id of a job that is submitted now (nanoseconds since 1970)."""
        self._last = min(_LATEST - now_ns, self._last - 1)
        return f"{self._last:016x}"
