"""The sending side of a work stream.

What is sent while a message is on its way gathers in the next one, so that a busy stream carries few, large messages.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from cortex.batch.v1 import worker_service_pb2
from services.scheduler.domain.model.worker import ContainerState
from services.scheduler.usecases.ports.workers import Grant

Response = worker_service_pb2.WorkResponse


class StreamLink:
    """See `WorkerLink`, and more that the servicer alone sends."""

    def __init__(self) -> None:
        self._outgoing = Response()
        self._ready = asyncio.Event()
        self.closed = ""
        """Why the stream is to end; empty while it goes on."""

    def send_grants(self, grants: Sequence[Grant]) -> None:
        """Batches to deliver."""
        for grant in grants:
            lease = grant.lease
            self._outgoing.leases.add(
                batch_index=lease.index,
                epoch=lease.epoch,
                attempt=lease.attempt,
                payload=grant.payload,
                traceparent=grant.traceparent,
            )
        self._ready.set()

    def send_recorded(self, epochs: Sequence[int]) -> None:
        """Results that the worker may forget."""
        self._outgoing.recorded_epochs.extend(epochs)
        self._ready.set()

    def send_revoked(self, epochs: Sequence[int]) -> None:
        """Leases to give back where the container does not have their batch yet."""
        self._outgoing.revoked_epochs.extend(epochs)
        self._ready.set()

    def send_complete(self, traceparent: str) -> None:
        """POST /on-job-complete."""
        self._outgoing.job_complete.traceparent = traceparent
        self._outgoing.job_complete.SetInParent()
        self._ready.set()

    def send_containers(self, containers: Sequence[ContainerState]) -> None:
        """How the worker's containers are; replaces what was said before."""
        self._outgoing.ClearField("containers")
        self._outgoing.containers.SetInParent()
        for container in containers:
            self._outgoing.containers.containers.add(
                name=container.name,
                running=container.running,
                ends=container.ends,
                exit_code=container.exit_code,
                signal=container.signal,
                out_of_memory=container.out_of_memory,
                backing_off=container.backing_off,
                reason=container.reason,
            )
        self._ready.set()

    def send_shutdown(self, reason: str, grace_seconds: float, *, job_over: bool) -> None:
        """End."""
        self._outgoing.shutdown.job_over = job_over
        self._outgoing.shutdown.reason = reason
        self._outgoing.shutdown.grace_seconds = grace_seconds
        self._ready.set()

    def send_welcome(self, dropped_epochs: Sequence[int], heartbeat_seconds: float, *, keep_replies: bool) -> None:
        """The worker is let in."""
        self._outgoing.welcome.keep_replies = keep_replies
        self._outgoing.welcome.heartbeat_seconds = heartbeat_seconds
        self._outgoing.welcome.dropped_epochs.extend(dropped_epochs)
        self._ready.set()

    def send_heartbeat(self) -> None:
        """A sign of life."""
        self._outgoing.heartbeat.SetInParent()
        self._ready.set()

    def send_token(self, token: str) -> None:
        """A new token."""
        self._outgoing.token = token
        self._ready.set()

    def close(self, reason: str) -> None:
        """Cut the stream."""
        self.closed = self.closed or reason
        self._ready.set()

    async def messages(self) -> AsyncIterator[Response]:
        """What to send, until the stream is to end."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            message, self._outgoing = self._outgoing, Response()
            if message.ByteSize():
                yield message
            if self.closed:
                return
