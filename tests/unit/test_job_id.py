"""Job ids: newer jobs sort first, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain.job_id import JobIds, is_job_id

NOW_NS = 1_795_000_000_000_000_000
clocks = st.lists(st.integers(NOW_NS - 10**12, NOW_NS + 10**12), min_size=2, max_size=50)


def test_an_id_is_what_the_contract_says() -> None:
    assert JobIds().new(NOW_NS) == f"{2**63 - 1 - NOW_NS:016x}"


@given(clocks)
def test_newer_jobs_sort_first_and_no_id_comes_twice(clock: list[int]) -> None:
    ids = JobIds()
    made = [ids.new(now_ns) for now_ns in clock]
    assert made == sorted(set(made), reverse=True)
    assert all(map(is_job_id, made))


@given(clocks)
def test_ids_go_on_below_the_newest_one_that_is_known(clock: list[int]) -> None:
    newest = JobIds().new(clock[0])
    assert all(JobIds(newest).new(now_ns) < newest for now_ns in clock)


@pytest.mark.parametrize(
    "text",
    ["", "5", "8000000000000000", "600000000000000G", "6000000000000000\n", "60000000000000000", "ABCDEF0123456789"],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_job_id(text)
