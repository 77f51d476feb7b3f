"""How fast a job is of late, and how long it will take."""

from collections import deque
from dataclasses import dataclass

from services.scheduler.usecases.ports.clock import Clock

WINDOW_SECONDS = 30.0
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """A job's speed."""

    batches_per_second: float
    eta_seconds: float | None
    """Until the last batch is final; None while that cannot be told."""


class Speedometer:
    """Sees batches become final, and remembers the last half minute of it."""

    def __init__(self, clock: Clock, final: int) -> None:
        self._clock = clock
        self._samples = deque([(clock.monotonic(), final)])

    def note(self, final: int) -> None:
        """So many batches are final now."""
        now = self._clock.monotonic()
        if now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, final))
            # One sample from before the window stays: it tells what was final when the window began.
            while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW_SECONDS:
                self._samples.popleft()

    def read(self, final: int, total: int | None, *, paused: bool) -> Progress:
        """The speed, by what is final now. `total` is None while it is not known."""
        self.note(final)
        now = self._clock.monotonic()
        then, before = next(sample for sample in reversed(self._samples) if self._begins(sample, now))
        rate = (final - before) / (now - then) if now > then else 0.0
        eta = None if paused or total is None or rate <= 0 else (total - final) / rate
        return Progress(rate, 0.0 if total == final else eta)

    def _begins(self, sample: tuple[float, int], now: float) -> bool:
        return sample is self._samples[0] or sample[0] <= now - WINDOW_SECONDS
