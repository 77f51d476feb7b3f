"""A way to a server on which answers break off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from tests.contract.object_servers import AwsServer


class BreakingProxy:
    """Ends each connection after so many bytes of answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.limits: list[int] = []
        """Of the connections to come; those after them live on."""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        limit = self.limits.pop(0) if self.limits else None
        answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        sending = asyncio.create_task(_forward(reader, requests, None))
        try:
            await _forward(answers, writer, limit)
        finally:
            sending.cancel()
            requests.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
    try:
        while data := await reader.read(65536 if limit is None else min(65536, limit)):
            writer.write(data)
            await writer.drain()
            limit = None if limit is None else limit - len(data)
    except ConnectionError:
        pass  # one side is gone: so is the other now
    finally:
        writer.close()


@asynccontextmanager
async def breaking_proxy(server: AwsServer) -> AsyncIterator[tuple[AwsServer, BreakingProxy]]:
    """The same server behind a proxy, and that."""
    proxy = BreakingProxy(urlsplit(server.endpoint).port or 0)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield replace(server, endpoint=f"http://127.0.0.1:{port}"), proxy
