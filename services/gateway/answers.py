"""The sorts of answers that go well: JSON; and as long as there is something to tell, lines of JSON or a websocket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common.errors import CortexError
from services.gateway import problems

_NORMAL, _SERVER_TROUBLE, _SERVICE_RESTART = 1000, 1011, 1012
"""Close codes of RFC 6455 and its registry."""


def as_json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Lines(Response):
    """`application/x-ndjson`: a value a line, each sent as soon as it is there.

    It ends with its source, when the client goes away, or when the gateway stops. Trouble in the middle becomes the
    last line, `{"kind", "message"}`: the status has long been sent.
    """

    media_type = "application/x-ndjson"

    def __init__(self, values: AsyncIterator[Any], stopping: asyncio.Event) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._values = values
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await _unless(self._send_all(send), self._stopping.wait(), _disconnected(receive))
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._values) as values:  # type: ignore[type-var]  # these are generators
            try:
                async for value in values:
                    await _send_line(send, msgspec.json.encode(value))
            except CortexError as error:
                await _send_line(send, problems.of(error).json())


async def _send_line(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})


async def send_text(socket: WebSocket, texts: AsyncIterator[str], stopping: asyncio.Event) -> None:
    """Open a websocket and send each text as a message, as fast as the client reads.

    It is closed (1000) with its source, when the client goes away, or when the gateway stops (1012). Trouble in the
    middle becomes the last message, and code 1011: clients print messages, few look at the code. What the client sends
    is thrown away.
    """
    await socket.accept()
    code = _SERVICE_RESTART

    async def send_all() -> None:
        nonlocal code
        async with aclosing(texts) as each:  # type: ignore[type-var]  # these are generators
            try:
                async for text in each:
                    await socket.send_text(text)
                code = _NORMAL
            except CortexError as error:
                await socket.send_text(f"error: {error.message}\n")
                code = _SERVER_TROUBLE

    with suppress(WebSocketDisconnect):
        await _unless(send_all(), stopping.wait(), _disconnected(socket.receive))
        await socket.close(code)


async def _unless(work: Awaitable[None], *ends: Awaitable[object]) -> None:
    """Do the work, unless one of the ends comes first: then it is cancelled. Raises what the work raises."""
    working = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait([working, *others], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, *others):
            task.cancel()
        await asyncio.wait([working, *others])
    if not working.cancelled():
        working.result()


async def _disconnected(receive: Receive) -> None:
    while not (await receive())["type"].endswith(".disconnect"):
        pass
