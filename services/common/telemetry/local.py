"""Spans to the collector of this machine, over a unix socket, on the event loop.

The standard exporter costs a process 6 MiB (a thread, and a second gRPC runtime beside `grpc.aio`) and a wake-up twice
a second; with one dequeuer a worker that counts. Here a timer runs only while spans wait, and the call shares the
runtime that is there. Spans that could not be sent wait, up to `MAX_WAITING`, for a collector that is started again.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Any

import grpc
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

log = logging.getLogger(__name__)

DELAY_S = 0.5
"""Spans wait so long for company."""

RETRY_S = 2.0
"""The pause after a failure."""

MAX_WAITING = 2048
MAX_MESSAGE = 128
"""Spans in a message: encoding them holds the event loop for 2 ms."""

TIMEOUT_S = 2.0
"""What a call may take, and so the end of the process."""

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class LocalExport(SpanProcessor):
    """Sends ended spans. Belongs to the event loop on which they end."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._waiting: deque[ReadableSpan] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._failing = False

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that ended. One that ended where no event loop runs is sent with a later one, or at the end."""
        if not span.context.trace_flags.sampled or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting.append(span)
        if self._timer is None and self._task is None:
            with suppress(RuntimeError):
                self._wait(DELAY_S)

    def shutdown(self) -> None:
        """Send what is left and block meanwhile, for `TIMEOUT_S` at most: the event loop need not run any more."""
        if self._timer is not None:
            self._timer.cancel()
        left = list(self._waiting)  # what is on its way may arrive twice, under the same ids
        self._waiting.clear()
        if not left:
            return
        with grpc.insecure_channel(self._target) as channel:
            call: Any = channel.unary_unary(_EXPORT)
            try:
                call(_encoded(left), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                self._note_failure(error)

    def _wait(self, delay: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._send(), name="export of spans")

    async def _send(self) -> None:
        if self._channel is None:
            retry_ms = int(RETRY_S * 1000)
            options = [("grpc.initial_reconnect_backoff_ms", retry_ms), ("grpc.max_reconnect_backoff_ms", retry_ms)]
            self._channel = grpc.aio.insecure_channel(self._target, options=options)
        call: Any = self._channel.unary_unary(_EXPORT)
        try:
            while self._waiting:
                message = list(islice(self._waiting, MAX_MESSAGE))
                await call(_encoded(message), timeout=TIMEOUT_S)
                self._failing = False
                for _ in message[: len(self._waiting)]:  # none are left after `shutdown`
                    self._waiting.popleft()
        except grpc.aio.AioRpcError as error:
            self._note_failure(error)
            self._wait(RETRY_S)
        finally:
            self._task = None

    def _note_failure(self, error: grpc.RpcError) -> None:
        if not self._failing:
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError | grpc.Call) else error
            log.warning("spans cannot be sent to %s; the earliest wait until they can (%s)", self._target, reason)
        self._failing = True


def _encoded(spans: list[ReadableSpan]) -> bytes:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # late: 22 modules

    return encode_spans(spans).SerializeToString()
