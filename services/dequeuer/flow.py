"""How many batches to hold: enough that the container never waits for the scheduler, and no more.

What is held beyond the batches in the container covers `HORIZON_S` of work, measured by a moving mean of the attempts'
durations. So batches of seconds are prefetched one at a time (another worker may do them sooner), and batches of a
fraction of a millisecond by the hundred. The window that the scheduler was told moves only when the wanted one has left
it by a quarter, so that noise is not news.
"""

HORIZON_S = 0.05
"""Work to hold beyond what is in the container: several round trips to the scheduler and its disk."""

MAX_PREFETCH = 256
"""Batches held beyond those in the container, at most."""

MAX_BYTES = 8 * 1024 * 1024
"""Payload bytes held, at most: a window of large batches would take the memory that this process may have."""

_WEIGHT = 0.1
_TOLERANCE = 0.25


class Flow:
    """The credit window of one worker."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._mean_s: float | None = None
        self._announced = 2 * concurrency + 2

    def observe(self, duration_s: float) -> None:
        """An attempt took so long."""
        mean = self._mean_s
        self._mean_s = duration_s if mean is None else mean + _WEIGHT * (duration_s - mean)

    def window(self) -> int:
        """Batches to hold in all: the announced number, or a new one where that is too far off."""
        wanted = self._wanted()
        if abs(wanted - self._announced) > _TOLERANCE * self._announced or wanted <= self._concurrency + 1:
            self._announced = wanted
        return self._announced

    def _wanted(self) -> int:
        if self._mean_s is None:
            return self._announced
        ahead = self._concurrency * HORIZON_S / max(self._mean_s, 1e-6)
        return self._concurrency + max(1, min(MAX_PREFETCH, round(ahead)))
