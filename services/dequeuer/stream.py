"""The work stream to the scheduler, kept open.

    connect -> hello -> welcome -> messages both ways -> broken -> wait -> connect ...

A stream is broken when the call ends or when nothing at all came for `MISSED_HEARTBEATS` intervals: heartbeats are
answered by the scheduler's event loop, so silence means that it hangs. A new stream begins with what is held; the
outbox then says everything again that the scheduler may not know. Two ends are final: the scheduler refuses this
worker (its job is over), or none was reached for `orphan_seconds`.
"""

import asyncio
import logging
import os
import random
from collections.abc import Iterable
from typing import Any, Protocol

import grpc

from cortex.batch.v1.worker_service_pb2 import HeldLease, Hello, WorkRequest, WorkResponse
from cortex.batch.v1.worker_service_pb2_grpc import WorkerServiceStub
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.channels import open_channel
from services.common.names import CHANNEL_OPTIONS
from services.dequeuer.outbox import Outbox
from services.dequeuer.token import Token

log = logging.getLogger(__name__)

HELLO_S = 5.0
"""A scheduler that has not said welcome by then is not there."""

MISSED_HEARTBEATS = 3
DEFAULT_HEARTBEAT_S = 5.0
DEFAULT_ORPHAN_S = 60.0
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 1.0

REFUSALS = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND},
)
"""Answers after which this worker is not wanted any more. Every other failure is worth another try."""

_OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 50),  # the waiting is done here
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """The scheduler does not know this worker any more, or with NOT_FOUND its job."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Orphaned(Exception):  # noqa: N818  # a condition, not an error
    """No scheduler was reached for too long."""


class _Broken(Exception):  # noqa: N818  # a condition, not an error
    """The stream in hand is of no use any more; says why, for people."""


class StreamListener(Protocol):
    """Takes what the scheduler says."""

    def held(self) -> list[HeldLease]:
        """Leases that a new stream begins with."""

    def completing(self) -> bool:
        """Whether /on-job-complete was asked for: another worker must not be asked meanwhile."""

    def welcomed(self, dropped_epochs: Iterable[int], *, keep_replies: bool) -> None:
        """A stream is open. These leases are not honoured any more. Whether the containers' replies are wanted."""

    def received(self, response: WorkResponse) -> None:
        """A message came; `token`, `welcome` and `heartbeat` in it have been dealt with."""


class WorkStream:
    """See the module's text."""

    def __init__(self, spec: WorkerSpec, outbox: Outbox, listener: StreamListener) -> None:
        self._outbox = outbox
        self._listener = listener
        self._worker_id = spec.worker_id
        self._token = Token(spec)
        self._address = spec.scheduler_address
        self._orphan_s = spec.orphan_seconds or DEFAULT_ORPHAN_S
        self._loop = asyncio.get_running_loop()
        self._contact = self._loop.time()
        self._farewell = False

    async def run(self) -> None:
        """Keep the stream open; return after goodbye. Raises `Refused` or `Orphaned`."""
        async with open_channel(self._address, _OPTIONS) as channel:
            stub: Any = WorkerServiceStub(channel)  # its type does not know calls that are read and written
            pause = BACKOFF_MIN_S
            while True:
                before = self._contact
                reason = await self._session(stub)
                if self._farewell:
                    return
                silent_s = self._loop.time() - self._contact
                if silent_s > self._orphan_s:
                    raise Orphaned(f"no scheduler at {self._address} for {silent_s:.0f} s: {reason}")
                had_contact = self._contact > before
                pause = BACKOFF_MIN_S if had_contact else min(BACKOFF_MAX_S, 2 * pause)
                log.log(
                    logging.WARNING if had_contact else logging.DEBUG,
                    "the work stream is broken and will be opened again: %s",
                    reason,
                )
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, not a secret

    async def _session(self, stub: Any) -> str:
        """One stream, until it is broken; returns why, for people."""
        call: Any = stub.Work()
        try:
            welcome = await self._greet(call)
            sender = asyncio.create_task(self._send(call))
            reader = asyncio.create_task(self._read(call))
            try:
                await self._watch(reader, sender, welcome.heartbeat_seconds or DEFAULT_HEARTBEAT_S)
            finally:
                sender.cancel()
                reader.cancel()
                await asyncio.wait((sender, reader))
        except _Broken as broken:
            return str(broken)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: a write after the call's end
            code, details = await call.code(), await call.details()
            if code in REFUSALS and not (code is grpc.StatusCode.UNAUTHENTICATED and self._token.may_change):
                raise Refused(code, details or code.name) from None
            return f"{code.name}: {details}"
        finally:
            call.cancel()
        return "the scheduler ended it"

    async def _greet(self, call: Any) -> Any:
        hello = Hello(
            token=self._token.current(),
            worker_id=self._worker_id,
            held=self._listener.held(),
            pid=os.getpid(),
            completing=self._listener.completing(),
        )
        try:
            async with asyncio.timeout(HELLO_S):
                await call.write(WorkRequest(hello=hello))
                response = await call.read()
        except TimeoutError:
            raise _Broken(f"no welcome in {HELLO_S:g} s") from None
        if response is grpc.aio.EOF:
            raise _Broken("the scheduler ended it without a welcome")
        self._contact = self._loop.time()
        log.info("the work stream is open, with %d leases held", len(hello.held))
        self._listener.welcomed(response.welcome.dropped_epochs, keep_replies=response.welcome.keep_replies)
        self._outbox.reopen()
        self._take(response)
        return response.welcome

    async def _send(self, call: Any) -> None:
        try:
            while not self._farewell:
                message = await self._outbox.next()
                await call.write(message)
                self._farewell = message.HasField("goodbye")
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended; the reader learns why

    async def _read(self, call: Any) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            self._contact = self._loop.time()
            self._take(response)

    async def _watch(self, reader: "asyncio.Task[None]", sender: "asyncio.Task[None]", interval_s: float) -> None:
        """Send heartbeats until the reader has ended; raises `_Broken` when the scheduler falls silent."""
        pending = {reader, sender}
        while reader in pending:
            done, pending = await asyncio.wait(pending, timeout=interval_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            silent_s = self._loop.time() - self._contact
            if silent_s >= MISSED_HEARTBEATS * interval_s:
                raise _Broken(f"the scheduler has said nothing for {silent_s:.1f} s")
            self._outbox.heartbeat()

    def _take(self, response: WorkResponse) -> None:
        if response.token:
            self._token.renew(response.token)
        if response.HasField("heartbeat"):
            self._outbox.reports.heartbeat_answered()
        self._listener.received(response)
