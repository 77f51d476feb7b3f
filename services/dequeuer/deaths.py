"""Tells a broken connection from a dead container: waits a moment for the news of its death."""

import asyncio

from services.dequeuer.ports import ContainerExit

NEWS_S = 1.0
"""A container's end is known so soon after its connections break, or was known so shortly before."""


class Deaths:
    """The latest end of a container."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
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
            await asyncio.wait([self._next], timeout=NEWS_S)
            return self._latest if self._latest is not before else None
        return self._latest
