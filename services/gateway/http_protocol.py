"""HTTP/1.1 for strangers: uvicorn's protocol with limits on a request's head and errors in JSON.

uvicorn bounds neither the size of a head nor the time that it may take, so that a client which sends a byte now and
then would hold a connection, and memory, for as long as it likes.
"""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.problems import Problem

MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 15.0
"""From the connection, or a further request's first byte, to the end of the head."""

_MALFORMED = Problem(400, "endpoints.malformed_request", "this is not an HTTP/1.1 request")
_TOO_LARGE = Problem(431, "endpoints.headers_too_large", f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
_TOO_LATE = Problem(408, "endpoints.request_timeout", f"the request's head was not there after {HEAD_S:.0f} s")


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _head_deadline: asyncio.TimerHandle | None = None
    """Set exactly while a head is awaited or being read."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has connected."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        super().data_received(data)
        if self._head_deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        if self._head_deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._head_is_there()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # The parser takes what follows for another protocol, to which we do not change.
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. The parser's own words tell a person nothing."""
        self._refuse(_MALFORMED)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: some clients offer HTTP/2 with every request."""

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_deadline = self.loop.call_later(HEAD_S, self._refuse, _TOO_LATE)

    def _head_is_there(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse(self, problem: Problem) -> None:
        self._head_is_there()
        if self.transport.is_closing():
            return
        body = problem.json()
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
