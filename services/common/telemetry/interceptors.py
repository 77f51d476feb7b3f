"""The W3C context over gRPC: in the metadata `traceparent`, with a span at either end of a call.

Health checks, reflection and the work stream, which lives as long as its worker, get no span: what they carry has
contexts of its own. At the client's end neither has another stream from there, which sends the context itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry import context as contexts
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context

from services.common.errors import CortexError
from services.common.telemetry.provider import fail
from services.common.telemetry.w3c import context_of, traceparent

_ServerContext = grpc.aio.ServicerContext[Any, Any]

HEADER = "traceparent"
_NOT_TRACED = ("/grpc.", "/cortex.batch.v1.WorkerService/")
"""Prefixes of methods."""


class TracingServerInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call a span below the caller's, current while the handler runs.

    It may stand before or behind `ErrorInterceptor`.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.stream_unary or method.startswith(_NOT_TRACED):
            return handler
        caller = _header(handler_call_details.invocation_metadata)
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, method, caller), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method, caller), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method, caller), *codecs)

    @contextmanager
    def _span(self, method: str, caller: str, context: _ServerContext) -> Iterator[None]:
        """A call's span, made current for good: each call is a task, with a context that ends with it."""
        parent = context_of(caller)
        span = self._tracer.start_span(_name(method), parent, SpanKind.SERVER, _attributes(method))
        contexts.attach(set_span_in_context(span, parent))
        try:
            yield
        except Exception as error:
            _note(span, error, context)
            raise
        finally:
            span.end()

    def _unary(self, behaviour: Any, method: str, caller: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: _ServerContext) -> Any:
            with self._span(method, caller, context):
                return await behaviour(request, context)

        return call

    def _stream(self, behaviour: Any, method: str, caller: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: _ServerContext) -> AsyncIterator[Any]:
            with self._span(method, caller, context):
                async for response in behaviour(request, context):
                    yield response

        return call


def client_interceptors(tracer: Tracer) -> list[grpc.aio.ClientInterceptor]:
    """What a channel needs so that its calls carry on the trace that is current where they are made."""
    return [_UnaryUnary(tracer), _UnaryStream(tracer)]


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        span, details = _outgoing(self._tracer, client_call_details)
        call: Any = None
        try:
            call = await continuation(details, request)
            await _note_status(call, span)
        except asyncio.CancelledError:
            if call is not None:
                call.cancel()
            raise
        finally:
            span.end()
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._watching: set[asyncio.Task[None]] = set()

    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        span, details = _outgoing(self._tracer, client_call_details)
        call = await continuation(details, request)
        watch = asyncio.create_task(_end_with(call, span), name=f"span of {details.method}")
        self._watching.add(watch)
        watch.add_done_callback(self._watching.discard)
        return call


async def _end_with(call: Any, span: Span) -> None:
    """End a span when its call does."""
    try:
        await _note_status(call, span)
    finally:
        span.end()


async def _note_status(call: Any, span: Span) -> None:
    code = await call.code()
    if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
        fail(span, f"{code.name}: {await call.details()}")


def _outgoing(tracer: Tracer, details: grpc.aio.ClientCallDetails) -> tuple[Span, grpc.aio.ClientCallDetails]:
    method = details.method if isinstance(details.method, str) else details.method.decode()
    span = tracer.start_span(_name(method), kind=SpanKind.CLIENT, attributes=_attributes(method))
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if header := traceparent(span):
        metadata.add(HEADER, header)
    carried = grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )
    return span, carried


def _note(span: Span, error: Exception, context: _ServerContext) -> None:
    # `ErrorInterceptor` aborts the call while it handles the error, which so is the context of the abort.
    cause = error.__context__ if isinstance(error, grpc.aio.AbortError) else error
    if isinstance(cause, CortexError):
        span.set_attribute("cortex.error.kind", cause.kind)
        fail(span, cause.message)
    elif isinstance(error, grpc.aio.AbortError):
        fail(span, context.details())
    else:
        fail(span, f"{type(error).__name__}: {error}")


def _header(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    for key, value in metadata:
        if key == HEADER and isinstance(value, str):
            return value
    return ""


def _name(method: str) -> str:
    """`/cortex.batch.v1.BatchService/SubmitJob` as `BatchService/SubmitJob`."""
    return method.rpartition(".")[2]


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method.strip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
