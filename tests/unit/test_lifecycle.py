"""A job's life, as a pure function."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.domain import lifecycle
from services.scheduler.domain.lifecycle import AskCompletion, EndWorkers, Life, Persist, Phase, Publish, advance
from services.scheduler.domain.model.job import Completion, JobState, JobStatus

FINE = Completion(200, "")
WORKING = Life(JobState(JobStatus.RUNNING))


def settled(
    final: int, *, total: int | None = 3, leases: int = 0, candidates: tuple[str, ...] = ("a", "b")
) -> lifecycle.Event:
    return lifecycle.Settled(final, total, leases, candidates)


def test_the_first_worker_makes_it_running_and_later_ones_change_nothing() -> None:
    life, effects = advance(Life(JobState(JobStatus.ENQUEUING)), lifecycle.WorkerCreated())
    assert life.state.status is JobStatus.RUNNING
    assert effects == [Persist()]
    assert advance(life, lifecycle.WorkerCreated()) == (life, [])


def test_completion_is_asked_of_exactly_one_worker_when_every_batch_is_final() -> None:
    life, effects = advance(WORKING, settled(3))
    assert effects == [AskCompletion("a")]
    assert life.phase is Phase.COMPLETING
    assert advance(life, settled(3)) == (life, [])


@pytest.mark.parametrize(
    "event",
    [settled(2), settled(3, leases=1), settled(3, total=None)],
    ids=["a batch is open", "a lease is out", "the input is being split"],
)
def test_completion_is_not_asked_while(event: lifecycle.Event) -> None:
    assert advance(WORKING, event) == (WORKING, [])


def test_with_no_worker_at_hand_completion_is_asked_once_there_is_one() -> None:
    life, effects = advance(WORKING, settled(3, candidates=()))
    assert effects == []
    assert advance(life, settled(3))[1] == [AskCompletion("a")]


def test_another_worker_is_asked_only_if_the_first_is_lost() -> None:
    life, _ = advance(WORKING, settled(3))
    unchanged, _ = advance(life, lifecycle.WorkerLost("b"))
    assert unchanged == life
    orphaned, _ = advance(life, lifecycle.WorkerLost("a"))
    assert advance(orphaned, settled(3, candidates=("b",)))[1] == [AskCompletion("b")]


def test_after_a_restart_the_worker_that_was_asked_is_not_doubled() -> None:
    life, effects = advance(WORKING, lifecycle.CompletionUnderWay("b"))
    assert effects == []
    assert advance(life, settled(3)) == (life, [])
    over, _ = advance(life, lifecycle.CompletionAnswered("b", FINE, 0, "", 5))
    assert over.state.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("failed", "completion", "status", "reason"),
    [
        (0, FINE, JobStatus.SUCCEEDED, ""),
        (2, FINE, JobStatus.COMPLETED_WITH_FAILURES, "2 batches failed, such as batch 4: answered 500"),
        (1, FINE, JobStatus.COMPLETED_WITH_FAILURES, "1 batch failed, such as batch 4: answered 500"),
        (0, Completion(500, "answered 500"), JobStatus.SUCCEEDED, "/on-job-complete: answered 500"),
    ],
)
def test_the_answer_ends_the_job(failed: int, completion: Completion, status: JobStatus, reason: str) -> None:
    life, _ = advance(WORKING, settled(3))
    over, effects = advance(life, lifecycle.CompletionAnswered("a", completion, failed, "batch 4: answered 500", 7))
    assert effects[0] == Persist()
    assert isinstance(effects[1], EndWorkers)
    assert over.state == replace(WORKING.state, status=status, reason=reason, completion=completion, ended_ns=7)


def test_an_answer_of_a_worker_that_was_not_asked_counts_for_nothing() -> None:
    life, _ = advance(WORKING, settled(3))
    assert advance(life, lifecycle.CompletionAnswered("b", FINE, 0, "", 7)) == (life, [])


PUBLISHING = replace(WORKING, publishes=True)


def test_a_job_that_publishes_is_over_only_when_that_is_done() -> None:
    asked, _ = advance(PUBLISHING, settled(3))
    answered, effects = advance(asked, lifecycle.CompletionAnswered("a", FINE, 1, "batch 4: no", 7))
    assert effects == [Persist(), Publish()]
    assert (answered.phase, answered.state.status, answered.state.completion) == (
        *(Phase.PUBLISHING, JobStatus.RUNNING, FINE),
    )
    for ignored in (
        settled(3),
        lifecycle.WorkerLost("a"),
        lifecycle.CompletionUnderWay("a"),
        lifecycle.WorkerCreated(),
    ):
        assert advance(answered, ignored) == (answered, [])
    over, effects = advance(answered, lifecycle.Published(1, "batch 4: no", 9))
    assert effects[0] == Persist()
    assert over.state == JobState(
        JobStatus.COMPLETED_WITH_FAILURES, "1 batch failed, such as batch 4: no", FINE, ended_ns=9
    )


def test_after_a_restart_a_job_that_was_answered_goes_on_with_publishing() -> None:
    asked, _ = advance(PUBLISHING, settled(3))
    answered, _ = advance(asked, lifecycle.CompletionAnswered("a", FINE, 0, "", 7))
    assert lifecycle.begin(answered.state, publishes=True) == answered
    assert lifecycle.begin(WORKING.state, publishes=True) == PUBLISHING


def test_a_job_that_publishes_can_be_stopped() -> None:
    asked, _ = advance(PUBLISHING, settled(3))
    answered, _ = advance(asked, lifecycle.CompletionAnswered("a", FINE, 0, "", 7))
    over, _ = advance(answered, lifecycle.Ended(JobStatus.STOPPED, "a user stopped it", 8))
    assert over.state.status is JobStatus.STOPPED
    assert advance(over, lifecycle.Published(0, "", 9)) == (over, [])


EVENTS = st.one_of(
    st.just(lifecycle.WorkerCreated()),
    st.just(lifecycle.InputSplit()),
    st.builds(lifecycle.InputFailed, st.just("bad value"), st.integers(1, 9)),
    st.builds(
        lifecycle.Settled,
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from([(), ("a",), ("b", "a")]),
    ),
    st.builds(lifecycle.CompletionUnderWay, st.sampled_from("ab")),
    st.builds(
        lifecycle.CompletionAnswered,
        st.sampled_from("ab"),
        st.just(FINE),
        st.integers(0, 3),
        st.just("x"),
        st.integers(1, 9),
    ),
    st.builds(lifecycle.Published, st.integers(0, 3), st.just("x"), st.integers(1, 9)),
    st.builds(lifecycle.WorkerLost, st.sampled_from("ab")),
    st.builds(
        lifecycle.Ended, st.sampled_from([JobStatus.STOPPED, JobStatus.TIMED_OUT]), st.just("x"), st.integers(1, 9)
    ),
)


@given(st.lists(EVENTS, max_size=30), st.booleans())
def test_whatever_happens_a_job_ends_once_and_is_never_asked_of_two_at_a_time(
    events: list[lifecycle.Event], publishes: bool
) -> None:
    life = Life(JobState(JobStatus.ENQUEUING), publishes=publishes)
    asked: str | None = None
    ends = 0
    for event in events:
        before, (life, effects) = life, advance(life, event)
        if before.phase is Phase.OVER:
            assert (life, effects) == (before, [])
        if event in (lifecycle.WorkerLost("a"), lifecycle.WorkerLost("b")) and isinstance(event, lifecycle.WorkerLost):
            asked = None if event.worker == asked else asked
        for effect in effects:
            if isinstance(effect, AskCompletion):
                assert asked is None
                asked = effect.worker
            assert publishes or not isinstance(effect, Publish)
            ends += isinstance(effect, EndWorkers)
        assert (life.phase is Phase.OVER) == life.state.status.final
        assert life.state.status.final == (life.state.ended_ns is not None)
        if life.state.status in (JobStatus.SUCCEEDED, JobStatus.COMPLETED_WITH_FAILURES):
            assert life.state.completion is not None
    assert ends == (life.phase is Phase.OVER)
