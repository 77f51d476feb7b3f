"""Who may ask the operator's routes: clients that speak its version and, where that is configured, of its AWS account.

As in Cortex, jobs (`/batch`) and `/verifycortex` are open to everyone who reaches the gateway, and `/info` needs no
version.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from services.common.errors import CortexError
from services.common.names import CONTRACT_VERSION
from services.gateway.aws_identity import AwsIdentities
from services.gateway.guards import over_tcp
from services.gateway.settings import Address

Handler = Callable[[Request], Awaitable[Response]]
SocketHandler = Callable[[WebSocket], Awaitable[None]]


@dataclass(frozen=True)
class Admission:
    """The checks in front of a handler."""

    version: str
    """Ours; a client of the same version, or of Cortex's 0.42, understands the answers."""
    identities: AwsIdentities | None
    """None: nobody is asked who they are."""

    def admitted(self, handler: Handler, *, versioned: bool = True) -> Handler:
        """The handler, for those who are let in."""

        async def checked(request: Request) -> Response:
            await self._check(request, versioned)
            return await handler(request)

        return checked

    def admitted_socket(self, handler: SocketHandler) -> SocketHandler:
        """The same for a websocket."""

        async def checked(socket: WebSocket) -> None:
            await self._check(socket, versioned=True)
            await handler(socket)

        return checked

    async def _check(self, connection: HTTPConnection, versioned: bool) -> None:
        if versioned:
            self._check_version(connection)
        if self.identities is not None and over_tcp(connection.scope):
            await self.identities.check(connection.headers)

    def _check_version(self, connection: HTTPConnection) -> None:
        given = connection.headers.get("cortexapiversion")
        if given is None and not _from_elsewhere(connection):
            return
        if given is None or not (given == self.version or re.fullmatch(rf"{CONTRACT_VERSION}\.\d+", given)):
            raise CortexError(
                "endpoints.api_version_mismatch",
                f"the header CortexAPIVersion is {given!r}; this deployment speaks {CONTRACT_VERSION}.x and "
                f"{self.version}: install that version of the client",
            )


def _from_elsewhere(connection: HTTPConnection) -> bool:
    client = connection.client
    return over_tcp(connection.scope) and (client is None or not Address(client.host, 0).is_loopback)
