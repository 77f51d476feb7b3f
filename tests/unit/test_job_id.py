"""Job ids: newer jobs sort first, whatever the clock does."""

import re

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.job_id import JobIds

NOW_NS = 1_795_000_000_000_000_000
clocks = st.lists(st.integers(NOW_NS - 10**12, NOW_NS + 10**12), min_size=2, max_size=50)


def test_an_id_is_what_the_contract_says() -> None:
    assert JobIds().new(NOW_NS) == f"{2**63 - 1 - NOW_NS:016x}"


@given(clocks)
def test_newer_jobs_sort_first_and_no_id_comes_twice(clock: list[int]) -> None:
    ids = JobIds()
    made = [ids.new(now_ns) for now_ns in clock]
    assert made == sorted(set(made), reverse=True)
    assert all(re.fullmatch("[0-7][0-9a-f]{15}", job_id) for job_id in made)


@given(clocks)
def test_ids_go_on_below_the_newest_one_that_is_known(clock: list[int]) -> None:
    newest = JobIds().new(clock[0])
    assert all(JobIds(newest).new(now_ns) < newest for now_ns in clock)
