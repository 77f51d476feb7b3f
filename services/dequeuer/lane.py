"""A lane: one place in the container for a batch, with the kept connection behind it.

    idle -> start -> (connect) -> sent -> reply -> idle
                        |          |- stale: sent again, once, on a fresh connection
                        |          |- broken: has the container died? yes: lost, no: a failed attempt
                        '- refused: nothing was sent, and the batch is given back

The fast path (a kept connection, an answer) runs in callbacks; only what is rare gets a task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from time import perf_counter
from typing import Protocol

from services.dequeuer.deaths import Deaths
from services.dequeuer.http_client import Broken, HttpConnection, Reply, unreachable
from services.dequeuer.lease import Lease
from services.dequeuer.replies import KeptReply, ReplyRoom
from services.dequeuer.requests import PostRequests
from services.dequeuer.spans import Request, Spans

CONNECT_S = 10.0
"""Within this the container's kernel accepts a connection, or its queue is full and the batch waits outside."""

Spawn = Callable[[Coroutine[None, None, None]], "asyncio.Task[None]"]
"""Runs a task for as long as the worker lives."""


class Unsent(Enum):
    """Why a lane gives a batch up without an outcome."""

    UNREACHABLE = "unreachable"  # the container lives and takes no connection; it has not seen the batch
    LOST = "lost"  # the container died with it


class LaneOwner(Protocol):
    """What a lane reports to. It is idle again when it calls."""

    @property
    def replies(self) -> ReplyRoom | None:
        """Where replies are kept; None when they are not wanted."""

    def answered(
        self, lane: "Lane", lease: Lease, status: int, duration_s: float, error: str, reply: KeptReply | None
    ) -> None:
        """The attempt has ended. Status 0: without an answer. `reply` is there after success where it is kept."""

    def unsent(self, lane: "Lane", lease: Lease, why: Unsent, reason: str) -> None:
        """There was no attempt, or it does not count."""


class Lane:
    """See the module's text."""

    __slots__ = (
        "_batch_timeout_s",
        "_connection",
        "_deaths",
        "_lease",
        "_owner",
        "_port",
        "_request",
        "_requests",
        "_spans",
        "_spawn",
        "_started",
        "_task",
    )

    def __init__(
        self,
        owner: LaneOwner,
        port: int,
        requests: PostRequests,
        batch_timeout_s: float | None,
        deaths: Deaths,
        spans: Spans,
        spawn: Spawn,
    ) -> None:
        self._owner = owner
        self._port = port
        self._requests = requests
        self._batch_timeout_s = batch_timeout_s
        self._deaths = deaths
        self._spans = spans
        self._spawn = spawn
        self._connection: HttpConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._request = Request("", None)
        self._started = 0.0

    @property
    def lease(self) -> Lease | None:
        """What it is busy with."""
        return self._lease

    def start(self, lease: Lease) -> None:
        """Deliver a batch. Only for an idle lane."""
        self._lease = lease
        self._request = self._spans.begin(lease.traceparent)
        connection = self._connection
        if connection is not None and connection.usable:
            self._send(connection, lease)
        else:
            self._task = self._spawn(self._connect_and_send(lease, sent_before=False))

    def rest(self) -> None:
        """Let go of the kept connection. Only for an idle lane."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def cancel(self) -> Lease | None:
        """Break off; return the lease that was in hand, of which nothing more will be heard."""
        lease, self._lease = self._lease, None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.rest()
        return lease

    def _send(self, connection: HttpConnection, lease: Lease) -> None:
        self._started = perf_counter()
        request = self._requests.build(lease.payload, self._request.traceparent)
        connection.send(request, self._on_reply, self._batch_timeout_s)

    async def _connect_and_send(self, lease: Lease, sent_before: bool) -> None:
        try:
            connection = await HttpConnection.open(self._port, CONNECT_S, replies=self._owner.replies)
        except (OSError, TimeoutError) as error:
            reason = unreachable(self._port, error)
            death = await self._deaths.around_now() if sent_before else None
            why = Unsent.UNREACHABLE if death is None else Unsent.LOST
            self._give_up(lease, why, reason if death is None else death.reason)
            return
        self._connection = connection
        self._send(connection, lease)

    def _on_reply(self, reply: Reply) -> None:
        lease = self._lease
        if lease is None:  # cancelled, and with it the reply
            return
        if reply.kept is not None:
            self._keep(lease, reply.kept)
        elif reply.broken is None:
            self._end(lease, reply.status, "" if reply.status == 200 else refusal(reply))
        elif reply.broken is Broken.STALE:
            self._task = self._spawn(self._connect_and_send(lease, sent_before=True))
        elif reply.broken is Broken.CLOSED:
            self._task = self._spawn(self._find_out(lease, perf_counter() - self._started, reply.reason))
        elif reply.broken is Broken.TOO_LARGE:
            self._end(lease, 200, reply.reason)
        elif reply.broken is Broken.TIMED_OUT:
            self._end(lease, 0, f"no answer in {self._batch_timeout_s:g} s (batch_timeout)")
        else:
            self._end(lease, 0, reply.reason)

    def _keep(self, lease: Lease, reply: KeptReply) -> None:
        if error := reply.misfit():
            reply.forget()
            self._end(lease, 200, error)
        else:
            self._end(lease, 200, "", reply=reply)

    async def _find_out(self, lease: Lease, duration_s: float, reason: str) -> None:
        death = await self._deaths.around_now()
        if death is None:
            self._end(lease, 0, reason, duration_s)
        else:
            self._give_up(lease, Unsent.LOST, death.reason)

    def _end(
        self, lease: Lease, status: int, error: str, duration_s: float | None = None, reply: KeptReply | None = None
    ) -> None:
        if duration_s is None:
            duration_s = perf_counter() - self._started
        self._lease = None
        self._task = None
        self._spans.delivered(lease, self._request, status, duration_s, error)
        self._owner.answered(self, lease, status, duration_s, error, reply)

    def _give_up(self, lease: Lease, why: Unsent, reason: str) -> None:
        self._lease = None
        self._task = None
        self._owner.unsent(self, lease, why, reason)


def refusal(reply: Reply) -> str:
    """What a container answered, for people."""
    printable = "".join(c if c.isprintable() else " " for c in reply.excerpt.decode(errors="replace"))
    said = " ".join(printable.split())
    return f"the container answered {reply.status}: {said}" if said else f"the container answered {reply.status}"
