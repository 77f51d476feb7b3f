"""What is to be said to the scheduler, put together into as few messages as possible.

Each part of the dequeuer says its latest word here (credit, health, completion) or adds to `reports`; `next` waits
until something is due and makes one message of all of it. After a reconnect `reopen` makes everything due again that
still holds, so that a part never asks whether there is a stream.
"""

import asyncio

from cortex.batch.v1.worker_service_pb2 import (
    CompletionResult,
    Credit,
    Goodbye,
    Health,
    Heartbeat,
    WorkRequest,
)
from services.dequeuer.flow import MAX_BYTES, Flow
from services.dequeuer.results import Reports


class Outbox:
    """See the module's text."""

    def __init__(self, flow: Flow) -> None:
        self._due = asyncio.Event()
        self._flow = flow
        self._accepting = False
        self._credit_told = 0
        self._health: Health | None = None
        self._health_told: Health | None = None
        self._completion: CompletionResult | None = None
        self._completion_told = False
        self._heartbeat = False
        self._goodbye: str | None = None
        self.reports = Reports(self._due.set)

    def accept(self, accepting: bool) -> None:
        """Ask for batches, or for none."""
        if accepting != self._accepting:
            self._accepting = accepting
            self._due.set()

    def health(self, health: Health) -> None:
        """How the containers are now."""
        if health != self._health:
            self._health = health
            self._due.set()

    def completion(self, result: CompletionResult) -> None:
        """The answer to /on-job-complete; sent again whenever this is called, and on every new stream."""
        self._completion = result
        self._completion_told = False
        self._due.set()

    def heartbeat(self) -> None:
        """Ask for a sign of life."""
        self._heartbeat = True
        self._due.set()

    def goodbye(self, reason: str) -> None:
        """The last message."""
        self._goodbye = reason
        self._due.set()

    def reopen(self) -> None:
        """A new stream, on which nothing has been said yet."""
        self._credit_told = 0
        self._health_told = None
        self._completion_told = False
        self.reports.reopen()
        self._due.set()

    async def next(self) -> WorkRequest:
        """The next message; waits until there is something to say."""
        while True:
            await self._due.wait()
            self._due.clear()
            message = self._message()
            if message.ByteSize():
                return message

    def _message(self) -> WorkRequest:
        message = WorkRequest()
        self.reports.take(message)
        credit = self._flow.window() if self._accepting else 0
        if credit != self._credit_told:
            message.credit.CopyFrom(Credit(batches=credit, bytes=MAX_BYTES if credit else 0))
            self._credit_told = credit
        if self._health is not None and self._health != self._health_told:
            message.health.CopyFrom(self._health)
            self._health_told = self._health
        if self._completion is not None and not self._completion_told:
            message.completion.CopyFrom(self._completion)
            self._completion_told = True
        if self._heartbeat or message.returned:
            message.heartbeat.CopyFrom(Heartbeat())
            self._heartbeat = False
            self.reports.heartbeat_sent()
        if self._goodbye is not None:
            message.goodbye.CopyFrom(Goodbye(reason=self._goodbye))
        return message
