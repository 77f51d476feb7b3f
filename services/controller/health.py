"""Whether the controller is well, for probes: gRPC's health service.

`""` (liveness) serves as long as the process does; `mirror` (readiness) once all resources were seen.
"""

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common.errors import CortexError
from services.controller.mirror import Mirror

READY = "mirror"
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health service's server."""

    def __init__(self, address: str) -> None:
        """Bind. Raises `CortexError`."""
        self._servicer = health.aio.HealthServicer()
        self._server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            message = f"cannot listen on {address}: is the port in use?"
            raise CortexError("system.address_in_use", message) from error

    async def start(self) -> None:
        """Answer."""
        await self._servicer.set("", _SERVING)
        await self._servicer.set(READY, _NOT_SERVING)
        await self._server.start()

    async def when_listed(self, *mirrors: Mirror) -> None:
        """Be ready once all of these have seen what there is."""
        for mirror in mirrors:
            await mirror.listed.wait()
        await self._servicer.set(READY, _SERVING)

    async def stop(self) -> None:
        """End."""
        await self._server.stop(None)
