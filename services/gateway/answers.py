"""The two sorts of answers that go well: JSON, and lines of JSON for as long as there is something to tell."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.common.errors import CortexError
from services.gateway import problems


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
            await self._until_over(receive, send)
        await send({"type": "http.response.body", "body": b""})

    async def _until_over(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send), name="lines of an answer")
        others = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(_disconnected(receive))]
        try:
            await asyncio.wait([sending, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *others):
                task.cancel()
            await asyncio.wait([sending, *others])
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._values) as values:  # type: ignore[type-var]  # these are generators
            try:
                async for value in values:
                    await _send_line(send, msgspec.json.encode(value))
            except CortexError as error:
                await _send_line(send, problems.of(error).json())


async def _send_line(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
