"""Gives ready batches to workers that have room.

A worker's credit is the most it may hold. Near the end of a job it gets less: its share of what is left, halved, so
that no worker sits on a tail while others are idle. When nothing is left to give and a worker is idle, batches that
another one holds but has not begun are asked back.
"""

from collections.abc import Iterable

from services.scheduler.domain.leases import Lease, LeaseBook
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.ports.workers import Grant
from services.scheduler.usecases.running.feed import Feed
from services.scheduler.usecases.running.worker import Worker

GRANTS_AT_ONCE = 64
"""In one message to one worker, so that all of them get something soon."""


class Dispatcher:
    """Leases one job's batches to its workers."""

    def __init__(self, book: LeaseBook, feed: Feed, trace: JobTrace, max_concurrency: int) -> None:
        self._book = book
        self._feed = feed
        self._trace = trace
        self._max_concurrency = max_concurrency

    def dispatch(self, workers: Iterable[Worker], *, input_split: bool) -> None:
        """Give out what is ready, as far as there is room."""
        usable = [worker for worker in workers if worker.usable]
        if not usable:
            return
        hungry = usable
        while hungry:
            hungry = [worker for worker in hungry if self._give(worker, self._share(len(usable), input_split))]
        if input_split and self._remaining() == 0:
            self._rebalance(usable)

    def _remaining(self) -> int:
        return self._feed.known - self._book.cursor + self._book.returned

    def _share(self, workers: int, input_split: bool) -> int:
        """How many batches one worker may hold just now."""
        if not input_split:
            return 1 << 30
        return max(self._max_concurrency, -(-self._remaining() // (2 * workers)))

    def _give(self, worker: Worker, share: int) -> bool:
        """Send one message's worth of leases; say whether there was anything to send and room to take more."""
        room = min(worker.credit_batches, share) - self._book.held_count(worker.id)
        grants: list[Grant] = []
        while len(grants) < min(room, GRANTS_AT_ONCE):
            batch = self._feed.peek()
            if batch is None:
                break
            index, body = batch
            # A batch that is larger than the whole credit still goes out, alone.
            if worker.held_bytes and worker.held_bytes + len(body) > worker.credit_bytes:
                break
            self._feed.pop()
            lease = self._book.grant(index, worker.id, len(body))
            worker.held_bytes += len(body)
            grants.append(Grant(lease, body, self._trace.batch_leased(lease)))
        if grants and worker.link is not None:
            worker.link.send_grants(grants)
        return len(grants) == GRANTS_AT_ONCE

    def _rebalance(self, usable: list[Worker]) -> None:
        if not any(self._book.held_count(worker.id) == 0 for worker in usable):
            return
        for worker in usable:
            waiting = self._not_begun(worker)
            self._ask_back(worker, waiting[len(waiting) // 2 :])

    def take_back(self, workers: Iterable[Worker]) -> None:
        """Ask for all batches that no container has yet."""
        for worker in workers:
            self._ask_back(worker, self._not_begun(worker))

    def _ask_back(self, worker: Worker, leases: list[Lease]) -> None:
        if leases and worker.link is not None:
            worker.revoked.update(lease.epoch for lease in leases)
            worker.link.send_revoked([lease.epoch for lease in leases])

    def _not_begun(self, worker: Worker) -> list[Lease]:
        """Leases that the worker cannot have begun yet, oldest first: it works on them in order."""
        waiting = list(self._book.held(worker.id))[self._max_concurrency :]
        return [lease for lease in waiting if lease.epoch not in worker.revoked]
