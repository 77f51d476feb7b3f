"""One task for each resource of a kind: it is started when the resource is first seen, woken at each change, and ended
when the resource is gone.

A task that ends has done what there was to do, and starts anew at the next change; one that fails starts anew after a
pause that doubles. Tasks look at the whole state each time, so nothing depends on which changes are heard of.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from services.common.errors import Category, CortexError
from services.common.kubernetes import Cluster, Followed, Object, Resource, follow
from services.controller.resources import Gone, deleted, generation_of, name_of, title_of, uid_of

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0


class Live:
    """A resource as it is now."""

    def __init__(self, resource: Object, all_of_them: Callable[[], Iterable["Live"]]) -> None:
        self.resource = resource
        self._all = all_of_them
        self._news = asyncio.Event()

    def namesakes(self) -> list[Object]:
        """All resources of this name, in whatever namespace; this one among them."""
        return [live.resource for live in self._all() if name_of(live.resource) == name_of(self.resource)]

    def update(self, resource: Object) -> None:
        """It changed."""
        if _version(resource) != _version(self.resource):
            self.resource = resource
            self.wake()

    def wake(self) -> None:
        """Let its task look again."""
        self._news.set()

    async def news(self, timeout: float | None = None) -> bool:
        """Wait until something happened since the last time; False when the time is over before."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    async def changed(self, generation: int, timeout: float) -> None:
        """Wait for a spec of another generation, or the resource's end, or so long. Our own writes are news too."""
        while await self.news(timeout):
            if deleted(self.resource) or generation_of(self.resource) != generation:
                return


Keep = Callable[[Live], Awaitable[None]]
"""What a resource's task does."""


class Mirror:
    """All resources of a kind."""

    def __init__(self, cluster: Cluster, resource: Resource, namespace: str | None, keep: Keep) -> None:
        """`namespace` None: of all namespaces."""
        self._cluster = cluster
        self._resource = resource
        self._namespace = namespace
        self._keep = keep
        self._live: dict[str, tuple[Live, asyncio.Task[None]]] = {}
        self.listed = asyncio.Event()
        """Set once all that there is was seen."""

    async def run(self) -> None:
        """For ever."""
        try:
            async for news in follow(self._cluster, self._resource, self._namespace):
                if isinstance(news, Followed):
                    self._all(news.objects)
                    self.listed.set()
                elif news.deleted:
                    self._gone(uid_of(news.object))
                else:
                    self._seen(news.object)
        finally:
            tasks = [task for _, task in self._live.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _all(self, resources: tuple[Object, ...]) -> None:
        for uid in self._live.keys() - {uid_of(resource) for resource in resources}:
            self._gone(uid)
        for resource in resources:
            self._seen(resource)

    def _seen(self, resource: Object) -> None:
        uid = uid_of(resource)
        if uid in self._live:
            self._live[uid][0].update(resource)
        else:
            live = Live(resource, lambda: [live for live, _ in self._live.values()])
            self._live[uid] = (live, asyncio.create_task(self._keep_for_ever(live), name=title_of(resource)))

    def _gone(self, uid: str) -> None:
        if (found := self._live.pop(uid, None)) is not None:
            found[1].cancel()

    async def _keep_for_ever(self, live: Live) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._keep(live)
                await live.news()
                pause = FIRST_PAUSE_SECONDS
                continue
            except Gone:
                return
            except CortexError as error:
                expected = error.category in (Category.UNAVAILABLE, Category.CONFLICT)
                log.log(logging.INFO if expected else logging.WARNING, "%s: %s", self._title(live), error.message)
            except Exception:
                log.exception("%s: something of ours broke; trying again", self._title(live))
            if asyncio.get_running_loop().time() - started > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS  # it went well for long
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  # spreads requests, guards nothing
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def _title(self, live: Live) -> str:
        return f"{self._resource.kind} {title_of(live.resource)}"


def _version(resource: Object) -> str:
    return str(resource["metadata"]["resourceVersion"])
