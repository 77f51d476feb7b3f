"""How many batches the dequeuer asks for."""

from hypothesis import given
from hypothesis import strategies as st

from services.dequeuer.flow import MAX_PREFETCH, Flow


def after(concurrency: int, durations: list[float]) -> int:
    flow = Flow(concurrency)
    for duration in durations:
        flow.observe(duration)
    return flow.window()


def test_before_anything_is_known_one_batch_waits_behind_each_in_the_container() -> None:
    assert Flow(4).window() == 10


def test_batches_of_seconds_are_prefetched_one_at_a_time() -> None:
    assert after(2, [3.0] * 10) == 3


def test_fast_batches_are_prefetched_by_the_hundred() -> None:
    assert after(8, [0.0005] * 100) == 8 + MAX_PREFETCH


def test_more_at_once_means_more_in_advance() -> None:
    assert after(8, [0.01] * 50) == 8 + 40
    assert after(1, [0.01] * 50) == 1 + 5


def test_noise_is_not_news() -> None:
    flow = Flow(1)
    for _ in range(100):
        flow.observe(0.001)
    told = flow.window()
    windows = set()
    for duration in (0.0011, 0.0009) * 50:
        flow.observe(duration)
        windows.add(flow.window())
    assert windows == {told}


def test_batches_that_become_slow_shrink_the_window_to_the_least() -> None:
    flow = Flow(2)
    for _ in range(100):
        flow.observe(0.001)
        flow.window()
    for _ in range(200):
        flow.observe(5.0)
        flow.window()
    assert flow.window() == 3


@given(st.integers(1, 64), st.lists(st.floats(0, 1e6), max_size=30))
def test_the_window_keeps_the_container_busy_and_is_bounded(concurrency: int, durations: list[float]) -> None:
    assert concurrency < after(concurrency, durations) <= max(2 * concurrency + 2, concurrency + MAX_PREFETCH)
