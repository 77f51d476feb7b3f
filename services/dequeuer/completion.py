"""Tells the container that its job is complete: POST /on-job-complete, once.

The answer is kept. A scheduler that asks again (it was restarted before it had the answer on disk) gets the same one:
the container is not told twice.
"""

import asyncio
import logging
from time import perf_counter

from cortex.batch.v1.worker_service_pb2 import CompletionResult
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.deaths import Deaths
from services.dequeuer.delivery import Delivery
from services.dequeuer.http_client import Broken, HttpConnection, exchange, unreachable
from services.dequeuer.lane import CONNECT_S, Spawn, refusal
from services.dequeuer.outbox import Outbox
from services.dequeuer.requests import PostRequests
from services.dequeuer.spans import Spans

log = logging.getLogger(__name__)

PATH = "/on-job-complete"
BODY = b'{"message":"job_complete"}'
ANSWER_S = 60.0
"""The container gets so long to answer."""

_FINE = (200, 404)


class Completion:
    """See the module's text. The container must be idle and `ready` before it is asked."""

    def __init__(
        self,
        spec: WorkerSpec,
        outbox: Outbox,
        deaths: Deaths,
        spans: Spans,
        spawn: Spawn,
        delivery: Delivery,
        ready: asyncio.Event,
    ) -> None:
        self._port = spec.port
        self._requests = PostRequests(PATH, spec.port, spec.job_id)
        self._outbox = outbox
        self._deaths = deaths
        self._spans = spans
        self._spawn = spawn
        self._delivery = delivery
        self._ready = ready
        self._task: asyncio.Task[None] | None = None
        self._result: CompletionResult | None = None
        self.quiet = asyncio.Event()
        """Clear while the container is at it."""
        self.quiet.set()

    @property
    def asked(self) -> bool:
        """The scheduler has asked for it: the answer is under way or known."""
        return self._task is not None

    def ask(self, traceparent: str) -> None:
        """Tell the container, and the scheduler what it answered."""
        if self._result is not None:
            self._outbox.completion(self._result)
        elif self._task is None:
            self._task = self._spawn(self._run(traceparent))

    def cancel(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, traceparent: str) -> None:
        await self._delivery.idle.wait()
        await self._ready.wait()
        self._delivery.rest()
        self.quiet.clear()
        request = self._spans.begin(traceparent)
        started = perf_counter()
        status, error = await self._post(request.traceparent)
        if error:
            log.warning("%s: %s", PATH, error)
        self._spans.completed(traceparent, request, status, perf_counter() - started, error)
        self._result = CompletionResult(http_status=status, error=error)
        self._outbox.completion(self._result)
        self.quiet.set()

    async def _post(self, traceparent: str) -> tuple[int, str]:
        try:
            connection = await HttpConnection.open(self._port, CONNECT_S)
        except (OSError, TimeoutError) as error:
            return 0, unreachable(self._port, error)
        reply = await exchange(connection, self._requests.build(BODY, traceparent), ANSWER_S)
        if reply.broken is None:
            return reply.status, "" if reply.status in _FINE else refusal(reply)
        if reply.broken is Broken.TIMED_OUT:
            return 0, f"no answer in {ANSWER_S:g} s"
        death = await self._deaths.around_now() if reply.broken is Broken.CLOSED else None
        return 0, f"container {death.container} {death.reason}" if death else reply.reason
