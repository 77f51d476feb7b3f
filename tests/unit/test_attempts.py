"""Further attempts: how many, for which failures, after how long."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.attempts import ONCE, policy_of, wait_after
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.domain.model.options import DeadLetterQueue, Options, RetryPolicy

SPEC = JobSpec("7000000000000000", "hello", "v1", 1, 1, "", None, None, None, 1, "")
QUEUE = DeadLetterQueue("arn:aws:sqs:us-west-2:123456789012:dead", 4)
POLICY = RetryPolicy(10, 1.0, 60.0)


def test_a_batch_is_attempted_once_unless_retries_or_a_queue_say_otherwise() -> None:
    assert policy_of(SPEC) == ONCE
    assert wait_after(ONCE, 1, 500, 0.5) is None
    assert policy_of(replace(SPEC, dead_letter_queue=QUEUE)).max_attempts == 4
    assert policy_of(replace(SPEC, dead_letter_queue=QUEUE, options=Options(retries=POLICY))) is POLICY


def test_waits_double_up_to_their_limit_and_half_of_each_is_chance() -> None:
    assert [wait_after(POLICY, attempt, 500, 1.0) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [wait_after(POLICY, attempt, 500, 0.0) for attempt in (1, 2, 9)] == [0.5, 1, 30]
    assert wait_after(replace(POLICY, backoff_seconds=0.0), 3, 500, 1.0) == 0


@pytest.mark.parametrize(("status", "again"), [(503, True), (429, True), (500, False), (201, False), (0, True)])
def test_only_statuses_that_are_listed_and_missing_answers_are_worth_another_attempt(status: int, again: bool) -> None:
    assert (wait_after(replace(POLICY, on=(429, 503)), 1, status, 0.5) is not None) is again
    assert wait_after(POLICY, 1, status, 0.5) is not None


@given(
    st.integers(1, 10_000),
    st.floats(0, 4e9),
    st.floats(0, 4e9),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_longer_than_its_limit(attempt: int, first: float, longest: float, chance: float) -> None:
    wait = wait_after(RetryPolicy(10_001, first, longest), attempt, 0, chance)
    assert wait is not None
    assert 0 <= wait <= longest
