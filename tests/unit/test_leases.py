"""Leases: whoever does what in whatever order, every batch gets exactly one outcome."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.scheduler.domain import leases
from services.scheduler.domain.leases import AT_ONCE, EPOCH_BITS, Lease, LeaseBook, Verdict
from services.scheduler.domain.model.batch import History, OpenBatches

TOTAL = 12
FAILURE = (500, "the container answered 500")
WORKERS = ("a", "b", "c")


def next_batch(book: LeaseBook) -> int:
    claimed = book.claim_returned()
    return book.cursor if claimed is None else claimed


def test_epochs_grow_with_leases_and_with_generations() -> None:
    book = LeaseBook(generation=7)
    first, second = book.grant(0, "a", 1), book.grant(1, "a", 1)
    assert first.epoch < second.epoch < LeaseBook(generation=8).grant(0, "a", 1).epoch
    assert first.epoch >> EPOCH_BITS == 7


def test_a_success_counts_from_an_old_lease_while_the_batch_is_open() -> None:
    book = LeaseBook(1)
    old = book.grant(0, "a", 1)
    assert book.release(0, old.epoch, lost=True) is Verdict.RETRY
    new = book.grant(next_batch(book), "b", 1)
    assert new.index == 0
    assert book.succeed(0) == (Verdict.FINAL, new)
    assert book.fail(0, new.epoch, *FAILURE, None) is Verdict.WAIT
    book.recorded(0)
    assert book.succeed(0) == (Verdict.VOID, None)


def test_a_failure_counts_only_from_the_current_lease() -> None:
    book = LeaseBook(1)
    old = book.grant(0, "a", 1)
    book.release(0, old.epoch, lost=False)
    assert book.fail(0, old.epoch, *FAILURE, None) is Verdict.VOID
    new = book.grant(next_batch(book), "b", 1)
    assert book.fail(0, old.epoch, *FAILURE, None) is Verdict.VOID
    assert book.fail(0, new.epoch, *FAILURE, None) is Verdict.FINAL


def test_another_attempt_waits_until_it_is_due() -> None:
    book = LeaseBook(1)
    assert book.fail(0, book.grant(0, "a", 1).epoch, *FAILURE, 20.0) is Verdict.RETRY
    assert book.fail(1, book.grant(1, "a", 1).epoch, *FAILURE, AT_ONCE) is Verdict.RETRY
    assert book.fail(2, book.grant(2, "a", 1).epoch, *FAILURE, 10.0) is Verdict.RETRY
    assert [next_batch(book), next_batch(book)] == [1, 3]
    assert (book.waiting, book.next_due, book.low_water(set())) == (2, 10.0, 0)
    assert not book.put_back_due(9.9)
    assert book.put_back_due(10.0)
    again = book.grant(next_batch(book), "a", 1)
    assert (again.index, again.attempt) == (2, 2)
    assert book.fail(2, again.epoch, *FAILURE, None) is Verdict.FINAL


def test_a_late_success_ends_the_wait_for_another_attempt() -> None:
    book = LeaseBook(1)
    book.fail(0, book.grant(0, "a", 1).epoch, *FAILURE, 20.0)
    assert book.succeed(0) == (Verdict.FINAL, None)
    assert not book.put_back_due(30.0)


def test_a_batch_that_is_given_up_is_nobodys_also_after_a_restart() -> None:
    book = LeaseBook(1)
    others = [book.grant(index, "a", 1) for index in range(3)]
    book.fail(2, others[2].epoch, *FAILURE, None)
    assert book.give_up(2) == History(1, 0, others[2].epoch, *FAILURE, given_up=True)
    histories, book = book.histories, LeaseBook(2)
    assert book.restore(OpenBatches(holes=[0], next_index=1, histories=histories)) == [2]
    assert not book.adopt(2, others[2].epoch + 1, 1, "a", known=3)
    assert book.succeed(2) == (Verdict.WAIT, None)
    assert [next_batch(book), next_batch(book), next_batch(book)] == [0, 1, 3]
    assert (book.leased, book.low_water({2})) == (1, 0)
    book.recorded(2)
    assert (book.leased, book.crowded) == (0, False)


def test_no_fresh_batches_go_out_while_many_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_SET_ASIDE", 2)
    book = LeaseBook(1)
    book.fail(0, book.grant(0, "a", 1).epoch, *FAILURE, 20.0)
    book.fail(1, book.grant(1, "a", 1).epoch, *FAILURE, None)
    crowded = [book.crowded]
    book.give_up(1)
    crowded.append(book.crowded)
    book.recorded(1)
    assert [*crowded, book.crowded] == [False, True, False]


def test_a_batch_that_loses_three_workers_is_final_and_giving_it_back_does_not_count() -> None:
    book = LeaseBook(1)
    verdicts = []
    for lost in (True, False, True, False, True):
        lease = book.grant(next_batch(book), "a", 1)
        verdicts.append(book.release(0, lease.epoch, lost=lost))
    assert verdicts == [Verdict.RETRY] * 4 + [Verdict.FINAL]
    error = "3 workers were lost while they had this batch"
    assert book.histories[0] == History(attempts=0, losses=3, epoch=lease.epoch, error=error)


def test_after_a_restart_only_the_holes_and_what_is_fresh_are_open() -> None:
    book = LeaseBook(2)
    book.restore(OpenBatches(holes=[3, 5], next_index=8, histories={3: History(1, 2)}))
    assert [next_batch(book), next_batch(book), next_batch(book)] == [3, 5, 8]
    assert book.low_water(set()) == 3
    assert book.succeed(4) == (Verdict.VOID, None)


def test_a_failure_or_a_loss_counts_once_also_when_its_worker_returns_with_the_lease() -> None:
    for generation in (1, 2):  # without and with a restart in between
        book = LeaseBook(1)
        lost, failed = book.grant(0, "a", 1), book.grant(1, "a", 1)
        book.release(0, lost.epoch, lost=True)
        book.fail(1, failed.epoch, *FAILURE, AT_ONCE)
        if generation == 2:
            histories, book = book.histories, LeaseBook(2)
            book.restore(OpenBatches(holes=[0, 1], next_index=2, histories=histories))
        for lease in (lost, failed):
            assert not book.adopt(lease.index, lease.epoch, 1, "a", known=2)
            assert book.release(lease.index, lease.epoch, lost=True) is Verdict.VOID
            assert book.fail(lease.index, lease.epoch, *FAILURE, None) is Verdict.VOID
            assert book.is_returned(lease.index)
        again = book.grant(next_batch(book), "b", 1)
        assert book.release(again.index, again.epoch, lost=True) is Verdict.RETRY
        assert book.histories[0].losses == 2


def test_a_returning_worker_keeps_its_leases_and_skipped_batches_are_not_forgotten() -> None:
    book = LeaseBook(2)
    book.restore(OpenBatches(holes=[1], next_index=4))
    assert book.adopt(1, 77, 1, "a", known=10)
    assert book.adopt(6, 78, 1, "a", known=10)
    assert not book.adopt(0, 79, 1, "a", known=10), "it is final"
    assert not book.adopt(10, 80, 1, "a", known=10), "there is no such batch"
    assert not book.adopt(6, 81, 1, "b", known=10), "somebody else holds it"
    assert [next_batch(book), next_batch(book), next_batch(book)] == [4, 5, 7]
    assert book.fail(6, 78, *FAILURE, None) is Verdict.FINAL


def test_a_returning_worker_that_names_an_epoch_twice_holds_two_batches() -> None:
    book = LeaseBook(2)
    assert book.adopt(0, 7, 1, "a", known=10)
    assert book.adopt(1, 7, 1, "a", known=10)
    for lease in list(book.held("a")):
        assert book.release(lease.index, lease.epoch, lost=False) is Verdict.RETRY
    assert (book.leased, book.returned) == (0, 2)


class EveryBatchEndsOnce(RuleBasedStateMachine):
    """Any interleaving of grants, results (late, doubled, wrong), waits, losses, giving up and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 1
        self.book = LeaseBook(1)
        self.seen: list[Lease] = []  # every lease ever made
        self.durable: dict[int, bool] = {}
        self.recording: dict[int, bool] = {}
        self.given_up: set[int] = set()
        self.now = 0.0
        self.low_water = 0

    @rule(worker=st.sampled_from(WORKERS))
    def grant(self, worker: str) -> None:
        index = self.book.claim_returned()
        if index is None and self.book.cursor < TOTAL:
            index = self.book.cursor
        if index is not None:
            self.seen.append(self.book.grant(index, worker, 10))

    @rule(data=st.data(), wait=st.sampled_from((None, 0, 1, 2)), gives_up=st.booleans(), succeeded=st.booleans())
    def result(self, data: st.DataObject, wait: int | None, gives_up: bool, succeeded: bool) -> None:
        if not self.seen:
            return
        lease = data.draw(st.sampled_from(self.seen))
        due = None if wait is None else AT_ONCE if wait == 0 else self.now + wait
        if succeeded:
            verdict = self.book.succeed(lease.index)[0]
        else:
            verdict = self.book.fail(lease.index, lease.epoch, *FAILURE, due)
        if verdict is Verdict.FINAL:
            self._final(lease.index, succeeded, gives_up and not succeeded)
        elif verdict is Verdict.VOID and succeeded:
            assert lease.index in self.durable or lease.index >= self.book.cursor

    @rule(data=st.data(), lost=st.booleans(), gives_up=st.booleans())
    def release(self, data: st.DataObject, lost: bool, gives_up: bool) -> None:
        if not self.seen:
            return
        lease = data.draw(st.sampled_from(self.seen))
        if self.book.release(lease.index, lease.epoch, lost=lost) is Verdict.FINAL:
            self._final(lease.index, False, gives_up)

    def _final(self, index: int, succeeded: bool, gives_up: bool) -> None:
        assert index not in self.durable
        assert index not in self.recording
        assert index not in self.given_up
        if gives_up:
            self.book.give_up(index)
            self.given_up.add(index)
        else:
            self.recording[index] = succeeded

    @rule()
    def time_passes(self) -> None:
        self.now += 1
        self.book.put_back_due(self.now)

    @rule()
    def what_was_given_up_ends(self) -> None:
        for index in self.given_up - set(self.recording):
            self.recording[index] = False

    @rule()
    def record(self) -> None:
        self.low_water = self.book.low_water(set(self.recording))
        for index, succeeded in self.recording.items():
            self.durable[index] = succeeded
            self.book.recorded(index)
            self.given_up.discard(index)
        self.recording.clear()

    @rule(held_by=st.sampled_from(WORKERS))
    def restart(self, held_by: str) -> None:
        held = list(self.book.held(held_by))
        self.generation += 1
        histories = {index: history for index, history in self.book.histories.items() if history.given_up}
        self.book = LeaseBook(self.generation)
        self.recording.clear()
        end = max(self.durable, default=-1) + 1
        holes = [index for index in range(self.low_water, end) if index not in self.durable]
        given_up = self.book.restore(OpenBatches(holes, max(end, self.low_water), histories))
        assert sorted(given_up) == sorted(self.given_up)
        for lease in held:
            assert self.book.adopt(lease.index, lease.epoch, lease.attempt, held_by, TOTAL)

    @invariant()
    def what_is_below_the_low_water_mark_is_final(self) -> None:
        assert all(index in self.durable for index in range(self.low_water))

    @invariant()
    def every_batch_below_the_cursor_is_somewhere(self) -> None:
        below = range(self.book.cursor)
        ending = {*self.durable, *self.recording, *self.given_up}
        assert all((i in ending) != self.book.is_open(i) for i in below)
        assert self.book.leased + self.book.returned + self.book.waiting + len(self.durable) == self.book.cursor


TestEveryBatchEndsOnce = EveryBatchEndsOnce.TestCase
TestEveryBatchEndsOnce.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
