"""Reading a request's body within limits of size and time.

A body that is too large is answered as soon as that is known, and then drained for a while: a client that sends
everything before it reads would otherwise find its connection reset and never see the answer. One that waits for
`100 Continue` sends nothing at all.
"""

import asyncio

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


class BodyTooLarge(CortexError):  # noqa: N818  # says what is the matter
    """More than a submission may have. Its answer is a `DrainingResponse`."""

    def __init__(self) -> None:
        limit = f"{MAX_SUBMISSION_BYTES} bytes ({MAX_SUBMISSION_BYTES // 2**20} MiB)"
        super().__init__(
            "batchapi.request_size_exceeds_limit",
            f"the request's body is larger than {limit}: submit several jobs, or items that name their data",
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
        message_for_people = f"the body came too slowly: {IDLE_S:.0f} s without a byte, or {TOTAL_S:.0f} s in all"
        raise HttpError(
            Problem(408, "endpoints.request_timeout", message_for_people, {"Connection": "close"})
        ) from None
    return bytes(body)


class DrainingResponse(Response):
    """An answer that is whole at once, before the rest of the request's body is read and thrown away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, drain, and close the connection."""
        self.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(DRAIN_S):
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
