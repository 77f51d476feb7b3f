"""Tells a broken connection from a dead container: waits a moment for the news of its death.

Where something else runs the containers the news may be late. Then it is waited for only where there is a reason to: a
port that takes no connections any more, for a server whose process lives still listens. That is looked at again and
again for a moment, because the connections of a dying process may break before its port closes, and because it may be
up again when the news comes. Should none come (the cluster's API may be away for long), a port that was found closed is
evidence enough: who neither answers nor listens is gone.
"""

import asyncio

from services.dequeuer.http_client import HttpConnection
from services.dequeuer.ports import ContainerExit

NEWS_S = 1.0
"""A container's end is known so soon after its connections break, or was known so shortly before."""

LOOKS_S = (0.02, 0.08, 0.2, 0.7)
"""Pauses before the port is looked at."""


class Deaths:
    """The latest end of a container. `late_s`: where it may be known so late; 0 where `NEWS_S` is enough."""

    def __init__(self, port: int, late_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._late_s = late_s
        self._latest: ContainerExit | None = None
        self._at = 0.0
        self._next: asyncio.Future[None] = self._loop.create_future()

    def note(self, exit: ContainerExit) -> None:  # noqa: A002  # the domain's word
        """A container has ended."""
        self._latest = exit
        self._at = self._loop.time()
        self._next.set_result(None)
        self._next = self._loop.create_future()

    async def around_now(self) -> ContainerExit | None:
        """The container that ended in the last moment or ends in the next; None when none does."""
        if self._latest is None or self._loop.time() - self._at > NEWS_S:
            before = self._latest
            closed = await self._wait(self._next)
            if self._latest is not before:
                return self._latest
            return self._untold() if closed else None
        return self._latest

    async def _wait(self, news: "asyncio.Future[None]") -> bool:
        """Wait for news, as long as there is a reason to; returns whether the port was found closed."""
        if self._late_s <= NEWS_S:
            await asyncio.wait([news], timeout=NEWS_S)
            return False
        for pause in LOOKS_S:
            await asyncio.wait([news], timeout=pause)
            if news.done():
                return False
            if not await _is_open(self._port):
                await asyncio.wait([news], timeout=self._late_s)
                return True
        return False

    def _untold(self) -> ContainerExit:
        reason = "broke a connection and listened no more; how it ended was not told"
        return ContainerExit(f"on port {self._port}", None, None, False, reason)


async def _is_open(port: int) -> bool:
    try:
        connection = await HttpConnection.open(port, NEWS_S)
    except TimeoutError:
        return True  # it listens, and is busy
    except OSError:
        return False
    connection.abort()
    return True
