"""How often a watch may tell of its job."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.usecases.output.watch import Pace

INTERVAL = 0.005


def told_at(changes: list[float], burst: int) -> list[float]:
    """When a watch tells of a job that changes at these moments. Changes while it waits share one message."""
    pace, told = Pace(burst), [0.0]
    pace.sent(0.0, INTERVAL)
    for change in sorted(changes):
        if change > told[-1]:
            told.append(change + pace.wait(change, INTERVAL))
            pace.sent(told[-1], INTERVAL)
    return told


def test_a_few_changes_are_told_at_once() -> None:
    changes = [0.001 * number for number in range(1, 8)]
    assert told_at(changes, burst=8)[1:] == changes


def test_a_change_after_a_pause_is_told_at_once_though_the_pace_was_fast_before() -> None:
    busy = [0.0001 * number for number in range(1, 1000)]
    assert told_at([*busy, 1.0], burst=8)[-1] == 1.0


def test_an_interval_that_was_asked_for_is_kept_between_any_two() -> None:
    told = told_at([0.001 * number for number in range(1, 100)], burst=1)
    assert all(later - earlier > INTERVAL - 1e-9 for earlier, later in pairwise(told))
    assert len(told) > 15


@given(st.lists(st.floats(0.0001, 1.0), max_size=300), st.integers(1, 10))
def test_messages_never_come_faster_than_the_pace_and_one_burst(changes: list[float], burst: int) -> None:
    told = told_at(changes, burst)
    for first, start in enumerate(told):
        for count, end in enumerate(told[first:], 1):
            assert count <= burst + (end - start) / INTERVAL + 1e-6
