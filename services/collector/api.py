"""What the collector answers over gRPC: OTLP's `Export`, which takes spans, and `GetTrace`, which gives them."""

import re
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from cortex.batch.v1 import trace_service_pb2, trace_service_pb2_grpc
from services.collector.archive import Archive
from services.common.errors import CortexError
from services.common.grpc_errors import ErrorInterceptor
from services.common.names import CHANNEL_OPTIONS

MAX_CALLS = 32
"""Calls at once: with the message limit a bound on memory. A sender that is refused tries again."""

_Context = grpc.aio.ServicerContext[Any, Any]


class OtlpReceiver(otlp_grpc.TraceServiceServicer):
    """Takes spans. Never an error for a sender: a span that cannot be kept is only a lost span."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def Export(self, request: otlp.ExportTraceServiceRequest, context: _Context) -> Any:  # noqa: N802  # gRPC's
        """Answer when the spans are kept."""
        await self._archive.add(request)
        return otlp.ExportTraceServiceResponse()


class TraceApi(trace_service_pb2_grpc.TraceServiceServicer):
    """Gives traces."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def GetTrace(  # noqa: N802  # gRPC's name
        self, request: trace_service_pb2.GetTraceRequest, context: _Context
    ) -> trace_service_pb2.GetTraceResponse:
        """One trace; without spans when none has come yet."""
        if not re.fullmatch("[0-9a-f]{32}", request.trace_id):
            raise CortexError("trace.invalid_id", f"a trace id is 32 hex digits, not {request.trace_id[:100]!r}")
        spans, dropped = await self._archive.trace(bytes.fromhex(request.trace_id))
        return trace_service_pb2.GetTraceResponse(spans=spans, dropped_spans=dropped)


def server(archive: Archive) -> grpc.aio.Server:
    """A server of both, and of health."""
    made = grpc.aio.server(
        interceptors=[ErrorInterceptor()],
        # Without the last option a second collector on the same port would take half of the spans, unseen.
        options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    otlp_grpc.add_TraceServiceServicer_to_server(OtlpReceiver(archive), made)  # type: ignore[no-untyped-call]  # generated
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(TraceApi(archive), made)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), made)
    return made
