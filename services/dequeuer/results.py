"""What became of leases, kept until the scheduler has it for good.

    add/give_back -> pending -> (take) sent -> recorded: forgotten
                        ^----- reopen: a new stream ----'

Outcomes are sent together: when `FLUSH_COUNT` are waiting, `FLUSH_S` after the first of them, or at once when `flush`
says that nothing else is in the container. An outcome is forgotten when its epoch comes back as recorded. A lease that
was given back has no such answer; it is forgotten when a heartbeat that was sent after it is answered, which proves
that the scheduler has read it. Until then both count as held, so that a restarted scheduler waits for them.

Kept replies go with their outcomes, as many in a message as make `MESSAGE_BYTES`; a larger one goes alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cortex.batch.v1.worker_service_pb2 import HeldLease, Result, ReturnedLease, WorkRequest
from services.dequeuer.lease import Lease
from services.dequeuer.replies import KeptReply

FLUSH_COUNT = 64
FLUSH_S = 0.005
MESSAGE_BYTES = 1024 * 1024
"""Of replies in one message, unless a single one is larger."""


class _Outcome(NamedTuple):
    batch: int
    epoch: int
    attempt: int
    status: int
    duration_s: float
    error: str
    reply: KeptReply | None


class _Return(NamedTuple):
    batch: int
    epoch: int
    attempt: int
    lost_in_container: bool


class Reports:
    """Outcomes and returned leases on their way to the scheduler. `due` is called when something should be sent."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._outcomes: dict[int, _Outcome] = {}
        self._pending: list[_Outcome] = []
        self._returns: dict[int, _Return] = {}
        self._pending_returns: list[_Return] = []
        self._proved_by_heartbeat: deque[list[int]] = deque()
        self.settled = asyncio.Event()
        """Set while there is nothing that the scheduler has not got for good."""
        self.settled.set()

    def add(
        self, lease: Lease, status: int, duration_s: float, error: str = "", reply: KeptReply | None = None
    ) -> None:
        """An attempt has ended, with this status (0: no answer). `error` is for people, and empty after success."""
        outcome = _Outcome(lease.batch, lease.epoch, lease.attempt, status, duration_s, error, reply)
        self._outcomes[lease.epoch] = outcome
        self._pending.append(outcome)
        self.settled.clear()
        if len(self._pending) >= FLUSH_COUNT:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)

    def give_back(self, lease: Lease, lost_in_container: bool) -> None:
        """A lease ends without an outcome."""
        returned = _Return(lease.batch, lease.epoch, lease.attempt, lost_in_container)
        self._returns[lease.epoch] = returned
        self._pending_returns.append(returned)
        self.settled.clear()
        self.flush()

    def flush(self) -> None:
        """Have everything sent that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending or self._pending_returns:
            self._due()

    def take(self, message: WorkRequest) -> None:
        """Put what waits into a message."""
        pending, self._pending = self._pending, []
        room = MESSAGE_BYTES
        for position, outcome in enumerate(pending):
            if outcome.reply is not None:
                if outcome.epoch not in self._outcomes:
                    continue  # recorded from an earlier stream, and the reply is gone
                room -= outcome.reply.size
                if room < 0 and position:
                    self._pending = pending[position:]
                    self._due()
                    break
            result = message.results.add(
                batch_index=outcome.batch,
                epoch=outcome.epoch,
                outcome=Result.OUTCOME_FAILED if outcome.error else Result.OUTCOME_SUCCEEDED,
                http_status=outcome.status,
                duration_seconds=outcome.duration_s,
            )
            if outcome.error:  # hardly ever, and an empty field costs as much as a full one
                result.error = outcome.error
            if outcome.reply is not None:
                result.reply = outcome.reply.body
        returns, self._pending_returns = self._pending_returns, []
        message.returned.extend(
            ReturnedLease(batch_index=item.batch, epoch=item.epoch, lost_in_container=item.lost_in_container)
            for item in returns
        )

    def heartbeat_sent(self) -> None:
        """A heartbeat goes out, with or behind everything that there is to tell: `take` has just been called."""
        self._proved_by_heartbeat.append(list(self._returns))

    def heartbeat_answered(self) -> None:
        """Everything sent before the oldest unanswered heartbeat has been read."""
        if self._proved_by_heartbeat:
            self.forget(self._proved_by_heartbeat.popleft())

    def forget(self, epochs: Iterable[int]) -> None:
        """These are recorded, or will never count."""
        for epoch in epochs:
            outcome = self._outcomes.pop(epoch, None)
            if outcome is not None and outcome.reply is not None:
                outcome.reply.forget()
            self._returns.pop(epoch, None)
        if not self._outcomes and not self._returns:
            self.settled.set()

    def reopen(self) -> None:
        """A new stream: everything that is not known to be settled is sent again."""
        self._pending = list(self._outcomes.values())
        self._pending_returns = list(self._returns.values())
        self._proved_by_heartbeat.clear()
        self.flush()

    def held(self) -> list[HeldLease]:
        """Leases whose end the scheduler may not know."""
        unsettled: list[_Outcome | _Return] = [*self._outcomes.values(), *self._returns.values()]
        return [HeldLease(batch_index=item.batch, epoch=item.epoch, attempt=item.attempt) for item in unsettled]
