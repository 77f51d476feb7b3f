"""THE table between our errors and gRPC statuses, and the two ways across it.

Servers: `ErrorInterceptor` turns a raised `CortexError` into a status with a google.rpc.ErrorInfo. Clients:
`from_rpc_error` turns such a status back into the same `CortexError`.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common.errors import DOMAIN, Category, CortexError

MAX_MESSAGE_BYTES = 1024
"""An error travels in HTTP/2 headers, in two encodings that may triple it, and clients refuse more than 8 KiB."""

log = logging.getLogger(__name__)

STATUS_OF_CATEGORY = {
    Category.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Category.TOO_LARGE: grpc.StatusCode.OUT_OF_RANGE,
    Category.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Category.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Category.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Category.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Category.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Category.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Category.INTERNAL: grpc.StatusCode.INTERNAL,
}
CATEGORY_OF_STATUS = {status: category for category, status in STATUS_OF_CATEGORY.items()}


def to_status(error: CortexError) -> status_pb2.Status:
    """The google.rpc.Status of an error, with its kind as ErrorInfo."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.kind, domain=DOMAIN))
    code = cast("code_pb2.Code", STATUS_OF_CATEGORY[error.category].value[0])
    return status_pb2.Status(code=code, message=_shortened(error.message), details=[detail])


def _shortened(message: str) -> str:
    text = message.encode(errors="replace")
    return text.decode() if len(text) <= MAX_MESSAGE_BYTES else f"{text[:MAX_MESSAGE_BYTES].decode(errors='ignore')}..."


def from_rpc_error(error: grpc.RpcError) -> CortexError:
    """The error a server of ours raised; or, where it was none of ours, `system.*` with what gRPC says."""
    call = cast("grpc.aio.AioRpcError", error)
    code = call.code()
    category = CATEGORY_OF_STATUS.get(code, Category.INTERNAL)
    status = rpc_status.from_call(cast("grpc.Call", call))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return CortexError(info.reason, call.details() or "", category)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return CortexError("system.unavailable", f"no answer ({call.details()}); try again", Category.UNAVAILABLE)
    return CortexError("system.unexpected_error", call.details() or code.name.lower(), category)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: CortexError) -> None:
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details or "", status.trailing_metadata or ())


def _as_cortex_error(error: Exception, method: str) -> CortexError:
    if isinstance(error, CortexError):
        return error
    log.exception("%s failed", method, exc_info=error)
    return CortexError("system.unexpected_error", f"{type(error).__name__}: {error}", Category.INTERNAL)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Lets servicers raise: maps what they raise to a status, once, here."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # An unknown method has no handler: gRPC answers it by itself. Its own services raise nothing of ours.
        if handler is None or method.startswith("/grpc."):
            return handler
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, method), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, method), *codecs)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(_unary(handler.stream_unary, method), *codecs)
        return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream, method), *codecs)


def _unary(behaviour: Any, method: str) -> Callable[[Any, Any], Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the border of a task: whatever it is, the caller is told
            return await _abort(context, _as_cortex_error(error, method))

    return call


def _stream(behaviour: Any, method: str) -> Callable[[Any, Any], Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(request, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the border of a task: whatever it is, the caller is told
            await _abort(context, _as_cortex_error(error, method))

    return call
