"""The gRPC server: its addresses, its health, and our services once somebody brings them.

A server may start before the services are there (a standby's does): then it answers questions about health, with
NOT_SERVING for the services, and every call to one of them with UNAVAILABLE.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.trace import Tracer

from cortex.batch.v1 import batch_service_pb2, batch_service_pb2_grpc, worker_service_pb2, worker_service_pb2_grpc
from services.common.errors import Category, CortexError
from services.common.grpc_errors import ErrorInterceptor
from services.common.names import CHANNEL_OPTIONS
from services.common.telemetry import TracingServerInterceptor
from services.scheduler.api.batch_servicer import BatchServicer
from services.scheduler.api.worker_servicer import WorkerServicer

SERVICES = (
    batch_service_pb2.DESCRIPTOR.services_by_name["BatchService"].full_name,
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name,
)
OPTIONS = (
    *CHANNEL_OPTIONS,
    # Clients may ask for signs of life as often as every ten seconds, also between calls.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """What listens."""

    def __init__(self, address: str, unix_socket: str | None, tracer: Tracer) -> None:
        """Bind `address` (HOST:PORT) and the socket, if there is one. Raises `CortexError` when one is taken."""
        interceptors = [TracingServerInterceptor(tracer), ErrorInterceptor()]
        self._server = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
        self._started = False
        self._door = _Door()
        self._server.add_generic_rpc_handlers((self._door,))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = _listen(self._server, address, unix_socket)
        """The TCP port."""

    async def start(self) -> None:
        """Answer, if only about health so far."""
        self._started = True
        for name in SERVICES:
            await self._health.set(name, _NOT_SERVING)
        await self._health.set("", _SERVING)
        await self._server.start()

    async def serve(self, batch: BatchServicer, worker: WorkerServicer) -> None:
        """Serve our services from now on."""
        if not self._started:
            await self.start()
        door = cast("grpc.aio.Server", self._door)
        batch_service_pb2_grpc.add_BatchServiceServicer_to_server(batch, door)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(worker, door)
        for name in SERVICES:
            await self._health.set(name, _SERVING)

    async def drain(self) -> None:
        """Say that this server is about to end."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float | None) -> None:
        """End; calls under way get so long."""
        await self._server.stop(grace_seconds)


class _Door(grpc.GenericRpcHandler):
    """Takes services as a server does, and finds their methods when these are called."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """A service's methods."""
        self._handlers += handlers

    def add_registered_method_handlers(
        self, service: str, methods: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """The same once more, for servers that can make use of the names."""

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The method that is called."""
        for handler in self._handlers:
            if (method := handler.service(details)) is not None:
                return method
        if not self._handlers and details.method.startswith(tuple(f"/{name}/" for name in SERVICES)):
            return grpc.stream_stream_rpc_method_handler(_refuse)
        return None


def _refuse(requests: Any, context: Any) -> AsyncIterator[Any]:
    text = "this scheduler stands by: another one leads, or is about to; ask again"
    raise CortexError("system.standing_by", text, Category.UNAVAILABLE)


def _listen(server: grpc.aio.Server, address: str, unix_socket: str | None) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise CortexError("system.address_in_use", f"cannot listen on {address}: is the port in use?") from error
    if unix_socket is not None:
        Path(unix_socket).unlink(missing_ok=True)  # left by a predecessor that was killed
        try:
            server.add_insecure_port(f"unix:{unix_socket}")
        except RuntimeError as error:
            raise CortexError("system.cannot_listen", f"cannot make the unix socket {unix_socket}: {error}") from error
    return port
