"""A way to a PostgreSQL server on which commits break: the question is lost, or the answer."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class CommitProxy:
    """Breaks the connection at commits, as chance will have it."""

    def __init__(self, server_port: int, chance: random.Random, often: float) -> None:
        self._server_port = server_port
        self._chance = chance
        self.often = often
        """How many of the commits break."""
        self.port = 0
        self.lost = {"question": 0, "answer": 0}

    async def serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """One connection."""
        server, questions = await asyncio.open_connection("127.0.0.1", self._server_port)
        answering = asyncio.create_task(_forward(server, answers))
        try:
            while data := await client.read(65536):
                if b"COMMIT" in data and self._chance.random() < self.often:
                    await self._break(data, client, questions, server, answering)
                    break
                questions.write(data)
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            questions.close()
            answers.close()

    async def _break(
        self,
        data: bytes,
        client: asyncio.StreamReader,
        questions: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        answering: "asyncio.Task[None]",
    ) -> None:
        what = self._chance.choice(["question", "answer"])
        self.lost[what] += 1
        if what == "answer":
            answering.cancel()
            await asyncio.wait({answering})
            questions.write(data)
            asking = asyncio.create_task(_forward(client, questions))
            heard = b""
            while b"COMMIT\0" not in heard and (more := await server.read(65536)):
                heard += more
            asking.cancel()


async def _forward(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await one.read(65536):
            other.write(data)
        other.close()


@asynccontextmanager
async def commit_proxy(server_port: int, chance: random.Random, often: float) -> AsyncIterator[CommitProxy]:
    """A proxy on a port of its own."""
    proxy = CommitProxy(server_port, chance, often)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with listening:
        proxy.port = listening.sockets[0].getsockname()[1]
        yield proxy
