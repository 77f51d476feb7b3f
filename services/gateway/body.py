"""Reading a request's body: a whole one within limits of size and time, or a stream of lines without an end in sight.

A stream is read no faster than it is consumed, and may pause for as long as it likes.

A body that is refused is answered as soon as that is known, and then drained for a while: a client that sends
everything before it reads would otherwise find its connection reset and never see the answer. One that waits for
`100 Continue` sends nothing at all.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from services.common.errors import Category, CortexError
from services.common.names import MAX_SUBMISSION_BYTES
from services.gateway.problems import HttpError, Problem

MAX_DRAINED_BYTES = MAX_SUBMISSION_BYTES + 32 * 1024 * 1024
"""Read of a body that was refused. What is still to come then meets a closed connection."""
DRAIN_S = 20.0
IDLE_S = 20.0
"""A client that sends nothing for so long is given up."""
TOTAL_S = 120.0
"""A body that takes longer is given up, however steadily it trickles."""
CHUNK_BYTES = 256 * 1024
"""A stream is handed on in pieces of this size at most."""


class BodyTooLarge(CortexError):  # noqa: N818  # says what is the matter
    """More than a submission may have. Its answer is a `DrainingResponse`."""

    def __init__(self) -> None:
        limit = f"{MAX_SUBMISSION_BYTES} bytes ({MAX_SUBMISSION_BYTES // 2**20} MiB)"
        super().__init__(
            "batchapi.request_size_exceeds_limit",
            f"the request's body is larger than {limit}: send the items as a stream (Content-Type: "
            "application/x-ndjson), or items that name their data",
            Category.TOO_LARGE,
        )


class ClientGone(Exception):  # noqa: N818  # nothing went wrong
    """The client broke the connection off. Nobody is left to answer."""


async def read(request: Request) -> bytes:
    """The whole body. Raises `BodyTooLarge`, `ClientGone`, or `HttpError` 408 for one that comes too slowly."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_SUBMISSION_BYTES:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(TOTAL_S):
            more = True
            while more:
                async with asyncio.timeout(IDLE_S):
                    message = await request.receive()
                more = _has_more(message)
                body += message.get("body", b"")
                if len(body) > MAX_SUBMISSION_BYTES:
                    raise BodyTooLarge
    except TimeoutError:
        raise _too_slow("the body") from None
    return bytes(body)


def _too_slow(what: str) -> HttpError:
    text = f"{what} came too slowly: {IDLE_S:.0f} s without a byte, or {TOTAL_S:.0f} s in all"
    return HttpError(Problem(408, "endpoints.request_timeout", text, {"Connection": "close"}))


class Stream:
    """A body that is read as it comes."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._read = b""
        """Received, and not handed on yet."""
        self.over = False
        """The client has sent all."""

    async def first_line(self) -> bytes:
        """Everything up to the first line's end. Raises `CortexError` for a long one, and like `read`."""
        line = bytearray()
        try:
            async with asyncio.timeout(TOTAL_S):
                while not self.over and b"\n" not in self._read:
                    async with asyncio.timeout(IDLE_S):
                        await self._more()
                    line += self._read
                    if len(line) > MAX_SUBMISSION_BYTES:
                        text = f"the first line is larger than {MAX_SUBMISSION_BYTES} bytes"
                        raise CortexError("batchapi.request_size_exceeds_limit", text, Category.TOO_LARGE)
        except TimeoutError:
            raise _too_slow("the first line") from None
        first, _, self._read = bytes(line).partition(b"\n")
        return first

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is left, in pieces of `CHUNK_BYTES` at most. Raises `ClientGone`."""
        while True:
            for start in range(0, len(self._read), CHUNK_BYTES):
                yield self._read[start : start + CHUNK_BYTES]
            if self.over:
                return
            await self._more()

    async def _more(self) -> None:
        message = await self._receive()
        self.over = not _has_more(message)
        self._read = message.get("body", b"")


class DrainingResponse(Response):
    """An answer that is whole at once, before the rest of the request's body is read and thrown away."""

    drain_s = DRAIN_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, drain, and close the connection."""
        self.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(self.drain_s):
                await _drain(receive)
        except (TimeoutError, ClientGone):
            pass
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    drained, more = 0, True
    while more and drained < MAX_DRAINED_BYTES:
        message = await receive()
        more = _has_more(message)
        drained += len(message.get("body", b""))


def _has_more(message: Message) -> bool:
    if message["type"] == "http.disconnect":
        raise ClientGone
    return bool(message.get("more_body", False))
