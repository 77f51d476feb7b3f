"""Leases: whoever does what in whatever order, every batch gets exactly one outcome."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.scheduler.domain.leases import EPOCH_BITS, Lease, LeaseBook, Verdict
from services.scheduler.domain.model import History, OpenBatches

TOTAL = 12
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
    assert book.fail(0, new.epoch) is Verdict.WAIT
    book.recorded(0)
    assert book.succeed(0) == (Verdict.VOID, None)


def test_a_failure_counts_only_from_the_current_lease() -> None:
    book = LeaseBook(1)
    old = book.grant(0, "a", 1)
    book.release(0, old.epoch, lost=False)
    assert book.fail(0, old.epoch) is Verdict.VOID
    new = book.grant(next_batch(book), "b", 1)
    assert book.fail(0, old.epoch) is Verdict.VOID
    assert book.fail(0, new.epoch) is Verdict.FINAL


def test_a_failed_attempt_is_tried_again_up_to_the_limit() -> None:
    book = LeaseBook(1, max_attempts=2)
    assert book.fail(0, book.grant(0, "a", 1).epoch) is Verdict.RETRY
    again = book.grant(next_batch(book), "a", 1)
    assert (again.index, again.attempt) == (0, 2)
    assert book.fail(0, again.epoch) is Verdict.FINAL


def test_a_batch_that_loses_three_workers_is_final_and_giving_it_back_does_not_count() -> None:
    book = LeaseBook(1)
    verdicts = []
    for lost in (True, False, True, False, True):
        lease = book.grant(next_batch(book), "a", 1)
        verdicts.append(book.release(0, lease.epoch, lost=lost))
    assert verdicts == [Verdict.RETRY] * 4 + [Verdict.FINAL]
    assert book.histories[0] == History(attempts=0, losses=3, epoch=lease.epoch)


def test_after_a_restart_only_the_holes_and_what_is_fresh_are_open() -> None:
    book = LeaseBook(2)
    book.restore(OpenBatches(holes=[3, 5], next_index=8, histories={3: History(1, 2)}))
    assert [next_batch(book), next_batch(book), next_batch(book)] == [3, 5, 8]
    assert book.low_water(set()) == 3
    assert book.succeed(4) == (Verdict.VOID, None)


def test_a_failure_or_a_loss_counts_once_also_when_its_worker_returns_with_the_lease() -> None:
    for generation in (1, 2):  # without and with a restart in between
        book = LeaseBook(1, max_attempts=3)
        lost, failed = book.grant(0, "a", 1), book.grant(1, "a", 1)
        book.release(0, lost.epoch, lost=True)
        book.fail(1, failed.epoch)
        if generation == 2:
            histories, book = book.histories, LeaseBook(2, max_attempts=3)
            book.restore(OpenBatches(holes=[0, 1], next_index=2, histories=histories))
        for lease in (lost, failed):
            assert not book.adopt(lease.index, lease.epoch, 1, "a", known=2)
            assert book.release(lease.index, lease.epoch, lost=True) is Verdict.VOID
            assert book.fail(lease.index, lease.epoch) is Verdict.VOID
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
    assert book.fail(6, 78) is Verdict.FINAL


def test_a_returning_worker_that_names_an_epoch_twice_holds_two_batches() -> None:
    book = LeaseBook(2)
    assert book.adopt(0, 7, 1, "a", known=10)
    assert book.adopt(1, 7, 1, "a", known=10)
    for lease in list(book.held("a")):
        assert book.release(lease.index, lease.epoch, lost=False) is Verdict.RETRY
    assert (book.leased, book.returned) == (0, 2)


class EveryBatchEndsOnce(RuleBasedStateMachine):
    """Any interleaving of grants, results (late, doubled, wrong), losses and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 1
        self.book = LeaseBook(1)
        self.seen: list[Lease] = []  # every lease ever made
        self.durable: dict[int, bool] = {}
        self.recording: dict[int, bool] = {}
        self.losses: dict[int, int] = {}
        self.low_water = 0

    @rule(worker=st.sampled_from(WORKERS))
    def grant(self, worker: str) -> None:
        index = self.book.claim_returned()
        if index is None and self.book.cursor < TOTAL:
            index = self.book.cursor
        if index is not None:
            self.seen.append(self.book.grant(index, worker, 10))

    @rule(data=st.data(), succeeded=st.booleans())
    def result(self, data: st.DataObject, succeeded: bool) -> None:
        if not self.seen:
            return
        lease = data.draw(st.sampled_from(self.seen))
        verdict = self.book.succeed(lease.index)[0] if succeeded else self.book.fail(lease.index, lease.epoch)
        if verdict is Verdict.FINAL:
            assert lease.index not in self.durable
            assert lease.index not in self.recording
            self.recording[lease.index] = succeeded
        elif verdict is Verdict.VOID and succeeded:
            assert lease.index in self.durable or lease.index >= self.book.cursor

    @rule(data=st.data(), lost=st.booleans())
    def release(self, data: st.DataObject, lost: bool) -> None:
        if not self.seen:
            return
        lease = data.draw(st.sampled_from(self.seen))
        if self.book.release(lease.index, lease.epoch, lost=lost) is Verdict.FINAL:
            assert lease.index not in self.recording
            self.recording[lease.index] = False

    @rule()
    def record(self) -> None:
        self.low_water = self.book.low_water(set(self.recording))
        for index, succeeded in self.recording.items():
            self.durable[index] = succeeded
            self.book.recorded(index)
        self.recording.clear()

    @rule(held_by=st.sampled_from(WORKERS))
    def restart(self, held_by: str) -> None:
        held = list(self.book.held(held_by))
        self.generation += 1
        self.book = LeaseBook(self.generation)
        self.recording.clear()
        end = max(self.durable, default=-1) + 1
        holes = [index for index in range(self.low_water, end) if index not in self.durable]
        self.book.restore(OpenBatches(holes, max(end, self.low_water)))
        for lease in held:
            assert self.book.adopt(lease.index, lease.epoch, lease.attempt, held_by, TOTAL)

    @invariant()
    def what_is_below_the_low_water_mark_is_final(self) -> None:
        assert all(index in self.durable for index in range(self.low_water))

    @invariant()
    def every_batch_below_the_cursor_is_somewhere(self) -> None:
        below = range(self.book.cursor)
        assert all(i in self.durable or i in self.recording or self.book.is_open(i) for i in below)
        assert self.book.leased + self.book.returned + len(self.durable) == self.book.cursor


TestEveryBatchEndsOnce = EveryBatchEndsOnce.TestCase
TestEveryBatchEndsOnce.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
