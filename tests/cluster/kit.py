"""A cluster for tests.

async with TestCluster() as cluster:
    environ["KUBECONFIG"] = str(cluster.kubeconfig)   # for kubectl, our client, our services
    cluster.api                                        # the verbs without HTTP, to look at objects and to change them
    await cluster.away(30)                             # the API server does not answer so long
    cluster.cut()                                      # watches and all other connections break
    cluster.compact()                                  # who goes on with an old watch gets 410
    cluster.server.refuse("POST", "/jobs$", 500)       # the next such request fails
"""

import asyncio
import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.api.api import Api
from tests.cluster.api.server import Server
from tests.cluster.controllers.garbage import GarbageCollector
from tests.cluster.controllers.jobs import JobController
from tests.cluster.controllers.nodes import NodeController


class TestCluster:
    """The tests' own cluster: an API server in this process."""

    __test__ = False

    def __init__(
        self, backoff_seconds: float = 0.1, node_grace_seconds: float = 3.0, eviction_seconds: float | None = 0.5
    ) -> None:
        self.api = Api()
        self._loops = [
            JobController(self.api, backoff_seconds).loop,
            GarbageCollector(self.api).loop,
            NodeController(self.api, node_grace_seconds, eviction_seconds).loop,
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self.server = Server(self.api)
        self._directory = tempfile.TemporaryDirectory(prefix="cb-")

    @property
    def kubeconfig(self) -> Path:
        """What `KUBECONFIG` has to say to reach it."""
        return Path(self._directory.name) / "kubeconfig"

    async def __aenter__(self) -> Self:
        await self.server.start()
        self._tasks = [asyncio.create_task(loop.run()) for loop in self._loops]
        self.kubeconfig.write_text(json.dumps(_kubeconfig(self.server.url)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.server.stop()
        self._directory.cleanup()

    async def away(self, seconds: float) -> None:
        """The API server is gone, and comes back after so long at the same address."""
        for loop in self._loops:
            loop.running.clear()
        await self.server.stop()
        await asyncio.sleep(seconds)
        await self.server.start()
        for loop in self._loops:
            loop.running.set()

    def cut(self) -> None:
        """Break every connection."""
        self.server.cut_connections()

    def compact(self) -> None:
        """Forget what happened until now, and break watches: going on where one was is not possible any more."""
        self.api.store.compact()
        self.api.store.cut()


def _kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server}}],
        "users": [{"name": "tests", "user": {}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": "default"}}],
        "current-context": "tests",
    }
