"""Which batches are open, who holds them, and what a result is worth.

    fresh --grant--> leased --settle--> recording --recorded--> final
                      | |  ^
             give back| |  |grant
                      v |  |
                returned<------due------+
                        |               |
                        +--fail--> waiting

Batches below `cursor` were leased at least once; those from `cursor` on are *fresh*. A batch below the cursor is final
exactly if it is neither leased, returned, waiting nor recording, so memory grows with what is in flight, never with
the job. A batch that is *given up* counts as recording, maybe for long: what becomes of it is decided elsewhere.

A lease's *epoch* is `generation << 40 | number`: it grows with every lease and every start of the scheduler. Rules: a
success counts while its batch is open, whoever reports it; a failure counts only from the current lease; what was taken
for recording first stands.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from services.scheduler.domain.model.batch import History, OpenBatches
from services.scheduler.domain.waiting import Waiting

EPOCH_BITS = 40
MAX_LOSSES = 3
"""A batch that lost so many workers is failed."""
MAX_ADOPTED_GAP = 1_000_000
"""A returning worker cannot move the cursor further than this."""
MAX_SET_ASIDE = 10_000
"""While so many batches wait for another attempt, or are given up and not final yet, no fresh ones go out."""
AT_ONCE = 0.0
"""Instead of the moment at which another attempt is due."""


@dataclass(slots=True)  # not frozen: one is made for every batch, and freezing triples its cost
class Lease:
    """One batch in one worker's hands."""

    index: int
    epoch: int
    attempt: int
    worker: str
    size: int
    """Payload bytes."""


class Verdict(Enum):
    """What a result is worth."""

    FINAL = "final"  # the batch's outcome: record it
    RETRY = "retry"  # the attempt failed, there will be another one
    VOID = "void"  # it counts for nothing: the batch is final already, or the lease is not the current one
    WAIT = "wait"  # the batch's outcome is being recorded: say so when that is done


class LeaseBook:
    """The open batches of one job."""

    def __init__(self, generation: int) -> None:
        self._next_epoch = (generation << EPOCH_BITS) + 1
        self.cursor = 0
        self.histories: dict[int, History] = {}
        self._leases: dict[int, Lease] = {}  # by batch index: the current one
        self._held: dict[str, dict[int, Lease]] = {}  # by worker, by batch index, oldest first
        self._recording: set[int] = set()
        self._returned: list[int] = []  # a heap; may hold batches that are no longer returned
        self._returned_set: set[int] = set()
        self._waiting = Waiting()
        self._given_up = 0

    def restore(self, found: OpenBatches) -> list[int]:
        """Begin where an earlier scheduler left off. Gives the batches that it had given up.

        What waited for another attempt is returned: for how long it was to wait is forgotten.
        """
        given_up = [index for index, history in found.histories.items() if history.given_up]
        self.cursor = max(found.next_index, max(given_up, default=-1) + 1)
        self.histories = dict(found.histories)
        self._recording = set(given_up)
        self._given_up = len(given_up)
        self._returned_set = {*found.holes, *range(found.next_index, self.cursor)} - self._recording
        self._returned = sorted(self._returned_set)  # sorted is a heap
        return given_up

    # What is where

    @property
    def leased(self) -> int:
        """Batches in workers' hands or being recorded."""
        return len(self._leases) + len(self._recording)

    def is_leased(self, index: int) -> bool:
        """Whether a batch is one of these."""
        return index in self._leases or index in self._recording

    @property
    def returned(self) -> int:
        """Batches given back that wait for a worker."""
        return len(self._returned_set)

    @property
    def waiting(self) -> int:
        """Batches between two attempts."""
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether so many batches are set aside that no fresh ones should go out."""
        return len(self._waiting) + self._given_up >= MAX_SET_ASIDE

    @property
    def unclaimed(self) -> bool:
        """Whether `claim_returned` may find something."""
        return bool(self._returned)

    def held(self, worker: str) -> Iterable[Lease]:
        """A worker's leases, oldest first."""
        return self._held.get(worker, {}).values()

    def held_count(self, worker: str) -> int:
        """How many leases a worker has."""
        return len(self._held.get(worker, ()))

    def lease(self, index: int, epoch: int) -> Lease | None:
        """The current lease of a batch, if it has this epoch."""
        lease = self._leases.get(index)
        return lease if lease is not None and lease.epoch == epoch else None

    def size_of(self, index: int, epoch: int) -> int:
        """Payload bytes of a current lease; 0 when there is none with this epoch."""
        lease = self.lease(index, epoch)
        return lease.size if lease is not None else 0

    def is_open(self, index: int) -> bool:
        """Whether a batch below the cursor may still get an outcome."""
        return index in self._leases or index in self._returned_set or index in self._waiting

    def low_water(self, about_to_be_final: set[int]) -> int:
        """Every batch below this is final once those given are."""
        lowest = self.cursor
        for index in self._leases:
            if index < lowest:
                lowest = index
        if self._recording:
            lowest = min(lowest, min((i for i in self._recording if i not in about_to_be_final), default=lowest))
        if self._returned_set:
            lowest = min(lowest, min(self._returned_set))
        if self._waiting:
            lowest = min(lowest, min(self._waiting))
        return lowest

    # Giving out

    def claim_returned(self) -> int | None:
        """The lowest batch that was given back and is not claimed yet. It stays returned until it is granted."""
        while self._returned:
            index = heapq.heappop(self._returned)
            if index in self._returned_set:
                return index
        return None

    def put_back(self, index: int) -> None:
        """A batch that no worker holds waits for one."""
        self._returned_set.add(index)
        heapq.heappush(self._returned, index)

    def put_back_due(self, now: float) -> bool:
        """Batches whose next attempt is due wait for a worker; whether there were any."""
        due = self._waiting.take_due(now)
        for index in due:
            self.put_back(index)
        return bool(due)

    @property
    def next_due(self) -> float | None:
        """The moment for the next look at what is due."""
        return self._waiting.next_due

    def is_returned(self, index: int) -> bool:
        """Whether a batch still waits for a worker."""
        return index in self._returned_set

    def grant(self, index: int, worker: str, size: int) -> Lease:
        """Lease a batch that waits for a worker, or the fresh one at the cursor."""
        if index == self.cursor:
            self.cursor += 1
        else:
            self._returned_set.remove(index)
        attempt = self.histories[index].attempts + 1 if index in self.histories else 1
        lease = Lease(index, self._next_epoch, attempt, worker, size)
        self._next_epoch += 1
        self._hold(lease)
        return lease

    def adopt(self, index: int, epoch: int, attempt: int, worker: str, known: int) -> bool:
        """Let a returning worker keep a lease of an earlier time. False when the batch is not to be had any more.

        `known` is how many batches the job has as far as is known. A batch that is just being recorded stays the
        worker's to report until that is on disk; one that is given up is not delivered again. A lease whose failure or
        loss is counted has ended, also where its worker has not heard so: it must not count twice.
        """
        if index in self._leases:
            return self._leases[index].epoch == epoch and self._leases[index].worker == worker
        if index in self._recording:
            return not self._is_given_up(index)
        if not 0 <= index < known or index - self.cursor > MAX_ADOPTED_GAP:
            return False
        if index in self.histories and epoch <= self.histories[index].epoch:
            return False
        if index >= self.cursor:
            for skipped in range(self.cursor, index):
                self.put_back(skipped)
            self.cursor = index + 1
        elif index in self._returned_set:
            self._returned_set.discard(index)
        elif index in self._waiting:
            self._waiting.discard(index)
        else:
            return False
        self._hold(Lease(index, epoch, attempt, worker, 0))
        return True

    def _hold(self, lease: Lease) -> None:
        self._leases[lease.index] = lease
        self._held.setdefault(lease.worker, {})[lease.index] = lease

    def lose(self, index: int) -> None:
        """A batch that waits for a worker, or the fresh one at the cursor, is final without one: it cannot be read."""
        if index == self.cursor:
            self.cursor += 1
        else:
            self._returned_set.remove(index)
        self._recording.add(index)

    # Taking back

    def release(self, index: int, epoch: int, *, lost: bool) -> Verdict:
        """A lease comes back without a result; `lost`: its worker's container died with the batch in it."""
        lease = self._leases.get(index)
        if lease is None or lease.epoch != epoch:
            return Verdict.VOID
        self._drop(lease)
        if lost:
            history = self.histories.get(index, History())
            history = replace(history, losses=history.losses + 1, epoch=epoch)
            self.histories[index] = history
            if history.losses >= MAX_LOSSES:
                error = f"{MAX_LOSSES} workers were lost while they had this batch"
                self.histories[index] = replace(history, http_status=0, error=error)
                self._recording.add(index)
                return Verdict.FINAL
        self.put_back(index)
        return Verdict.RETRY

    # Results

    def succeed(self, index: int) -> tuple[Verdict, Lease | None]:
        """A batch succeeded under some lease. Also gives the lease that this makes void, if another worker holds it."""
        if index in self._recording:
            return Verdict.WAIT, None
        lease = self._leases.get(index)
        if lease is not None:
            self._drop(lease)
        elif index in self._returned_set:
            self._returned_set.discard(index)
        elif index in self._waiting:
            self._waiting.discard(index)
        else:
            return Verdict.VOID, None
        self._recording.add(index)
        return Verdict.FINAL, lease

    def fail(self, index: int, epoch: int, http_status: int, error: str, due: float | None) -> Verdict:
        """An attempt failed. The next one is due then, or `AT_ONCE`; None: there is none."""
        if index in self._recording:
            return Verdict.WAIT
        lease = self._leases.get(index)
        if lease is None or lease.epoch != epoch:
            return Verdict.VOID
        self._drop(lease)
        history = self.histories.get(index, History())
        self.histories[index] = History(history.attempts + 1, history.losses, epoch, http_status, error)
        if due is None:
            self._recording.add(index)
            return Verdict.FINAL
        if due == AT_ONCE:
            self.put_back(index)
        else:
            self._waiting.add(index, due)
        return Verdict.RETRY

    def give_up(self, index: int) -> History:
        """A batch that is final by its failures takes a while to end: what is to be remembered of it."""
        history = self.histories[index] = replace(self.histories[index], given_up=True)
        self._given_up += 1
        return history

    def recorded(self, index: int) -> None:
        """A batch's outcome is on disk."""
        self._recording.discard(index)
        history = self.histories.pop(index, None)
        if history is not None and history.given_up:
            self._given_up -= 1

    def _is_given_up(self, index: int) -> bool:
        return index in self.histories and self.histories[index].given_up

    def attempts(self, index: int) -> int:
        """Attempts of an open batch that failed."""
        history = self.histories.get(index)
        return history.attempts if history is not None else 0

    def _drop(self, lease: Lease) -> None:
        del self._leases[lease.index]
        held = self._held[lease.worker]
        del held[lease.index]
        if not held:
            del self._held[lease.worker]
