"""How a controller runs: changes name what to look at, and looking says when to look again."""

import asyncio
import heapq
import logging
import time
from collections.abc import Callable

from services.common.events import wait_within
from tests.cluster.api.api import Api
from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind
from tests.cluster.api.store import Change

log = logging.getLogger(__name__)

Key = tuple[str, str]
Keys = Callable[[Kind, Change], set[Key]]
Sync = Callable[[Key], float | None]
_AGAIN_SECONDS = 0.5


class Loop:
    """One controller: `keys` of a change are looked at by `sync`, which may ask to be called again in some seconds."""

    def __init__(self, api: Api, name: str, keys: Keys, sync: Sync) -> None:
        self._name = name
        self._keys = keys
        self._sync = sync
        self._due: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._news = asyncio.Event()
        self.running = asyncio.Event()
        """Cleared while the control plane is away."""
        self.running.set()
        api.store.listeners.append(self._changed)

    def _changed(self, kind: Kind, change: Change) -> None:
        if found := self._keys(kind, change):
            self._due |= found
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            await wait_within(self._news, wait)
            await self.running.wait()
            self._news.clear()
            while self._later and self._later[0][0] <= time.monotonic():
                self._due.add(heapq.heappop(self._later)[1])
            due, self._due = self._due, set()
            for key in sorted(due):
                self._look(key)

    def _look(self, key: Key) -> None:
        try:
            again = self._sync(key)
        except ApiError as error:
            log.warning("%s: %s: %s", self._name, "/".join(key), error)
            again = _AGAIN_SECONDS
        if again is not None:
            heapq.heappush(self._later, (time.monotonic() + again, key))
