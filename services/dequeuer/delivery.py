"""Delivers batches to the container: a queue of leases and as many lanes as batches may be in the container at once.

While `paused` (a probe fails, a container is down, the worker ends) nothing new is sent and nothing is kept in the
queue: leases that cannot be delivered are given back, so that another worker may have them.

A kept connection that nobody needs is closed soon: a server of one thread serves nobody else while it has one, neither
a probe nor /on-job-complete, and other servers close it themselves at a moment of their own choosing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from cortex.batch.v1.worker_service_pb2 import HeldLease
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.deaths import Deaths
from services.dequeuer.flow import Flow
from services.dequeuer.lane import Lane, Spawn, Unsent
from services.dequeuer.lease import Lease
from services.dequeuer.replies import KeptReply, ReplyRoom
from services.dequeuer.requests import PostRequests
from services.dequeuer.results import Reports
from services.dequeuer.spans import Spans

REST_S = 1.0
"""So often at most are the connections of idle lanes closed."""


class Delivery:
    """See the module's text."""

    def __init__(
        self,
        spec: WorkerSpec,
        reports: Reports,
        flow: Flow,
        deaths: Deaths,
        spans: Spans,
        spawn: Spawn,
        on_answer: Callable[[], None],
        on_unreachable: Callable[[str], None],
    ) -> None:
        self._reports = reports
        self._flow = flow
        self._on_answer = on_answer
        self._on_unreachable = on_unreachable
        requests = PostRequests("/", spec.port, spec.job_id)
        timeout_s = spec.batch_timeout_seconds if spec.HasField("batch_timeout_seconds") else None
        self._lanes = [
            Lane(self, spec.port, requests, timeout_s, deaths, spans, spawn)
            for _ in range(max(1, spec.max_concurrency))
        ]
        self._free = list(self._lanes)
        self._queue: deque[Lease] = deque()
        self._dropped: set[int] = set()
        self._paused = True
        self.replies: ReplyRoom | None = None
        """See `LaneOwner`."""
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self.idle = asyncio.Event()
        """Set while no batch is in the container."""
        self.idle.set()

    def keep_replies(self) -> None:
        """From now on replies are wanted. Said before the first lease."""
        if self.replies is None:
            self.replies = ReplyRoom(self._pump)

    def add(self, leases: Iterable[Lease]) -> None:
        """Deliver these in their turn."""
        if self._paused:
            for lease in leases:
                self._reports.give_back(lease, lost_in_container=False)
            return
        self._queue.extend(leases)
        self._pump()

    def revoke(self, epochs: Iterable[int]) -> None:
        """Give back what is not in the container yet."""
        revoked = frozenset(epochs)
        kept: deque[Lease] = deque()
        for lease in self._queue:
            if lease.epoch in revoked:
                self._reports.give_back(lease, lost_in_container=False)
            else:
                kept.append(lease)
        self._queue = kept

    def drop(self, epochs: Iterable[int]) -> None:
        """Forget leases that are not honoured any more. What is in the container goes on, and nobody hears of it."""
        dropped = frozenset(epochs)
        self._queue = deque(lease for lease in self._queue if lease.epoch not in dropped)
        self._dropped = {lease.epoch for lease in self._in_container() if lease.epoch in dropped | self._dropped}

    def pause(self) -> None:
        """Send nothing more, and give back what waits."""
        self._paused = True
        for lease in self._queue:
            self._reports.give_back(lease, lost_in_container=False)
        self._queue.clear()
        self.rest()

    def rest(self) -> None:
        """Close the kept connections of idle lanes."""
        for lane in self._free:
            lane.rest()

    def resume(self) -> None:
        """Deliver again."""
        self._paused = False

    def give_up(self) -> None:
        """Break off what is in the container, and give it back."""
        for lane in self._lanes:
            lease = lane.cancel()
            if lease is not None:
                self._free.append(lane)
                if not self._is_dropped(lease):
                    self._reports.give_back(lease, lost_in_container=False)
        self.idle.set()
        if self._rest is not None:
            self._rest.cancel()

    def held(self) -> list[HeldLease]:
        """What a new stream must know of."""
        leases = [*self._queue, *(lease for lease in self._in_container() if lease.epoch not in self._dropped)]
        return [HeldLease(batch_index=lease.batch, epoch=lease.epoch, attempt=lease.attempt) for lease in leases]

    # LaneOwner

    def answered(
        self, lane: Lane, lease: Lease, status: int, duration_s: float, error: str, reply: KeptReply | None
    ) -> None:
        """Report an attempt, and send the next batch."""
        if status:
            self._on_answer()
            self._flow.observe(duration_s)
        if not self._dropped or not self._is_dropped(lease):
            self._reports.add(lease, status, duration_s, error, reply)
        elif reply is not None:
            reply.forget()
        self._free.append(lane)
        self._next()

    def unsent(self, lane: Lane, lease: Lease, why: Unsent, reason: str) -> None:
        """Give a batch back. A closed port ends delivery until a probe finds it open."""
        self._free.append(lane)
        if not self._dropped or not self._is_dropped(lease):
            self._reports.give_back(lease, lost_in_container=why is Unsent.LOST)
        if why is Unsent.UNREACHABLE:
            self._on_unreachable(reason)
        self._next()

    def _pump(self) -> None:
        queue, free = self._queue, self._free
        while queue and free and not self._paused and not (self.replies and self.replies.full):
            self.idle.clear()
            free.pop().start(queue.popleft())

    def _next(self) -> None:
        self._pump()
        if len(self._free) == len(self._lanes):
            self.idle.set()
            self._reports.flush()
        if self._free and self._rest is None:
            self._rest = self._loop.call_later(REST_S, self._on_rest)

    def _on_rest(self) -> None:
        self._rest = None
        self.rest()

    def _in_container(self) -> list[Lease]:
        return [lane.lease for lane in self._lanes if lane.lease is not None]

    def _is_dropped(self, lease: Lease) -> bool:
        if lease.epoch in self._dropped:
            self._dropped.discard(lease.epoch)
            return True
        return False
