"""HTTP/1.1 for strangers: uvicorn's protocol with limits on a request's head and errors in JSON.

uvicorn bounds neither the size of a head nor the time that it may take, so that a client which sends a byte now and
then would hold a connection, and memory, for as long as it likes. And it loses the body of a request that offers
another protocol, as some clients do with HTTP/2 in every first request. A GET that asks for a websocket is handed on
when it is sound; one that is not would be left without an answer.
"""

import asyncio
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway import handshake
from services.gateway.problems import Problem

MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 15.0
"""From the connection, or a further request's first byte, to the end of the head."""
LINGER_S = 2.0
"""What a refused client still sends is thrown away for so long: a reset would take the answer from it."""

_MALFORMED = Problem(400, "endpoints.malformed_request", "this is not an HTTP/1.1 request")
_TOO_LARGE = Problem(431, "endpoints.headers_too_large", f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
_TOO_LATE = Problem(408, "endpoints.request_timeout", f"the request's head was not there after {HEAD_S:.0f} s")


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _head_deadline: asyncio.TimerHandle | None = None
    """Set exactly while a head is awaited or being read."""
    _head_bytes = 0
    _refused = False
    _declined = False
    """Another protocol was offered; this request is the connection's last."""

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
        if self._refused:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._should_upgrade():
                self._to_websocket()
            elif not self._declined:
                self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(_MALFORMED)
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

    def on_message_complete(self) -> None:
        """A request is whole; unless it offers another protocol: then the parser has skipped its body."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return self.scope["method"] == "GET" and super()._should_upgrade()

    def _to_websocket(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # asked for behind a request that is still being answered
        elif problem := handshake.problem_with(self.scope["http_version"], self.url, self.headers):
            self._refuse(problem)
        else:
            self.handle_websocket_upgrade()
            if not self.transport.get_protocol().handshake_initiated:  # type: ignore[attr-defined]  # uvicorn's
                self.transport.close()

    def _decline(self, data: bytes) -> None:
        """Decline the protocol that a request offers, and read the request's body."""
        self._declined = True
        self.cycle.keep_alive = False
        self.parser = httptools.HttpRequestParser(_Body(self))
        framing = {b"content-length", b"transfer-encoding"}
        head = b"".join(b"%b: %b\r\n" % (name, value) for name, value in self.headers if name in framing)
        self.data_received(b"POST / HTTP/1.1\r\n" + head + b"\r\n" + data)

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
        self._refused = True
        body = problem.json()
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nContent-Type: application/json\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in problem.headers.items())
            + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


class _Body:
    """Takes a request's body from a parser, and nothing after it."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        self._over = False

    def on_body(self, body: bytes) -> None:
        """A part of it."""
        if not self._over:
            self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        """Its end."""
        if not self._over:
            self._over = True
            self._protocol.on_message_complete()
