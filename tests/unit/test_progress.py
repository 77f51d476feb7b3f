"""A job's speed, on a clock that the test turns."""

from dataclasses import dataclass

from services.scheduler.usecases.running.progress import WINDOW_SECONDS, Progress, Speedometer


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ns(self) -> int:
        return int(self.now * 1e9)


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    meter = Speedometer(clock, 0)
    assert meter.read(0, 1000, paused=False) == Progress(0.0, None)
    for second in range(1, 61):
        clock.now = 100.0 + second
        meter.note(10 * second if second <= 30 else 300 + 2 * (second - 30))
    assert meter.read(360, 1000, paused=False) == Progress(2.0, 320.0)
    assert meter.read(360, None, paused=False).eta_seconds is None
    assert meter.read(360, 1000, paused=True).eta_seconds is None
    assert meter.read(360, 360, paused=False).eta_seconds == 0


def test_a_job_that_hangs_becomes_slower_and_slower() -> None:
    clock = Clock()
    meter = Speedometer(clock, 0)
    clock.now += 1
    assert meter.read(100, 1000, paused=False).batches_per_second == 100
    clock.now += 9
    assert meter.read(100, 1000, paused=False).batches_per_second == 10
    clock.now += WINDOW_SECONDS + 10
    assert meter.read(100, 1000, paused=False) == Progress(0.0, None)


def test_what_was_done_before_a_restart_does_not_count() -> None:
    clock = Clock()
    meter = Speedometer(clock, 5000)
    clock.now += 2
    assert meter.read(5010, 6000, paused=False) == Progress(5.0, 198.0)


def test_memory_is_that_of_the_window() -> None:
    clock = Clock()
    meter = Speedometer(clock, 0)
    for tick in range(100_000):
        clock.now += 0.01
        meter.note(tick)
    assert len(meter._samples) < 200
