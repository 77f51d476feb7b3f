"""The sorts of answers that go well: JSON; and as long as there is something to tell, lines of JSON or a websocket."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from services.common.batch_document import line
from services.common.errors import Category, CortexError
from services.gateway import problems
from services.gateway.body import ClientGone

log = logging.getLogger(__name__)

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
                    await _send_part(send, line(value))
            except CortexError as error:
                await _send_part(send, problems.of(error).json() + b"\n")


class Records(Response):
    """`application/x-ndjson` for programs: a record a line, and an end only if nothing is missing.

    The answer begins with the first page, even an empty one: trouble before it is an error with a status. Trouble
    later, and a gateway that stops, break the connection off: nothing else in HTTP says that there should be more.
    """

    media_type = "application/x-ndjson"

    def __init__(self, pages: AsyncIterator[Iterable[Any]], stopping: asyncio.Event) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._pages = pages
        self._stopping = stopping
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the records."""
        try:
            complete = await _unless(self._send_all(scope, send), self._stopping.wait(), _disconnected(receive))
        except CortexError as error:
            if not self._begun:
                raise
            log.warning("%s breaks off: %s: %s", scope["path"], error.kind, error.message)
            return
        if complete:
            await send({"type": "http.response.body", "body": b""})
        elif not self._begun and self._stopping.is_set():
            text = "the gateway is being stopped; try again shortly"
            raise CortexError("system.unavailable", text, Category.UNAVAILABLE)
        elif not self._begun:
            raise ClientGone

    async def _send_all(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._pages) as pages:  # type: ignore[type-var]  # these are generators
            async for page in pages:
                await self._begin(send)
                if scope["method"] == "HEAD":
                    return
                if part := b"".join(map(line, page)):
                    await _send_part(send, part)
        await self._begin(send)

    async def _begin(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


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


async def _unless(work: Awaitable[None], *ends: Awaitable[object]) -> bool:
    """Do the work, unless one of the ends comes first: then it is cancelled. True when it is done.

    Raises what the work raises.
    """
    working = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait([working, *others], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, *others):
            task.cancel()
        await asyncio.wait([working, *others])
    if working.cancelled():
        return False
    working.result()
    return True


async def _disconnected(receive: Receive) -> None:
    while not (await receive())["type"].endswith(".disconnect"):
        pass
