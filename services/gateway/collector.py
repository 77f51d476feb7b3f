"""The gateway's side of the collector, which keeps this machine's traces."""

import grpc

from cortex.batch.v1.trace_service_pb2 import GetTraceRequest, GetTraceResponse
from cortex.batch.v1.trace_service_pb2_grpc import TraceServiceStub
from services.common.errors import Category, CortexError
from services.common.grpc_errors import from_rpc_error

CALL_S = 10.0


class Collector:
    """Traces, where they are kept. `channel` is None where they are not."""

    def __init__(self, channel: grpc.aio.Channel | None) -> None:
        self._stub = None if channel is None else TraceServiceStub(channel)

    async def trace(self, trace_id: str) -> GetTraceResponse:
        """A trace. Raises `CortexError`."""
        if self._stub is None:
            raise CortexError(
                "trace.not_kept",
                f"this deployment keeps no traces itself: look up trace {trace_id} where OTEL_EXPORTER_OTLP_ENDPOINT "
                "sends them",
                Category.NOT_FOUND,
            )
        try:
            return await self._stub.GetTrace(GetTraceRequest(trace_id=trace_id), timeout=CALL_S, wait_for_ready=True)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
