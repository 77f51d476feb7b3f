"""Websockets: uvicorn's protocol with a quieter log.

Every websocket has a line of its own in the gateway's log (`observe.py`). What uvicorn and its library say of each step
is left out, and so is the error that uvicorn notes after each refusal: it takes it for a handshake left unfinished.
"""

import logging
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_log = logging.getLogger("uvicorn.websockets")
_log.setLevel(logging.WARNING)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from the request that asked for the websocket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = _log

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
