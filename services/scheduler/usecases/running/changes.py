"""Those who wait for something to change: a job tells all of them, and each looks when it likes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.events import wait_within


class Changes:
    """The changes of one job."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set at every change, for as long as the block."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def tell(self) -> None:
        """Something changed."""
        for watcher in self._watchers:
            watcher.set()


async def pause(over: asyncio.Event, seconds: float) -> None:
    """Let some more happen before the next look, unless nothing will: the job is over."""
    if seconds > 0:
        await wait_within(over, seconds)
