"""Workers as pods, for the contract of drivers: on a cluster whose kubelet runs them as processes of this machine."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from services.common.kubernetes import Cluster
from services.scheduler.adapters.kubernetes_workers import KubernetesWorkerDriver
from services.scheduler.adapters.kubernetes_workers.pod_logs import PodLogs
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit
from tests.cluster.kit import AnyCluster, any_cluster
from tests.cluster.kubelet.kubelet import Node
from tests.integration.local_worker_kit import api, job
from tests.unit.kubernetes_work import SETTINGS

_SLEEPS = ("/bin/sh", "-c", "trap 'exit 66' TERM; echo there; sleep 1000 & wait")
"""Instead of a dequeuer, where a test is about the driver alone: hands back what it never had when it is told to go."""


class PodWorkers:
    """A driver, with workers to start and what it told; all on one directory share a cluster."""

    _clusters: ClassVar[dict[Path, AnyCluster]] = {}

    def __init__(self, data_dir: Path, dequeuer: Sequence[str] = _SLEEPS) -> None:
        self._data_dir = data_dir
        self._settings = msgspec.structs.replace(
            SETTINGS, dequeuer_command=tuple(dequeuer), node_selector={}, grace_seconds=15
        )
        self._stack = AsyncExitStack()
        self._news = asyncio.Event()
        self.exits: list[WorkerExit] = []
        self.driver: KubernetesWorkerDriver

    async def __aenter__(self) -> Self:
        if self._data_dir not in self._clusters:
            self._clusters[self._data_dir] = await self._stack.enter_async_context(any_cluster([Node()]))
            self._stack.callback(self._clusters.pop, self._data_dir)
        self._cluster = await Cluster.connect({"KUBECONFIG": str(self._clusters[self._data_dir].kubeconfig)})
        self._stack.push_async_callback(self._cluster.close)
        epoch = 1 + len(list(self._data_dir.glob("epoch-*")))
        (self._data_dir / f"epoch-{epoch}").touch()
        self.driver = KubernetesWorkerDriver(self._cluster, self._cluster.namespace, self._settings, epoch, str)
        self.driver.on_exit(self.exited)
        await self.driver.open(_never)
        self._stack.push_async_callback(self.driver.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, version: ApiVersion, slot: int = 0, of: JobRecord | None = None) -> WorkerRecord:
        """Start a worker."""
        wanted = WorkerRecord(f"wanted{slot}", (of or job()).spec.job_id, slot, None, None)
        async with asyncio.timeout(30):
            return await self.driver.start(version, of or job(), wanted, "unused")

    def exited(self, exit_: WorkerExit) -> None:
        """An exit was told."""
        self.exits.append(exit_)
        self._news.set()

    async def exit_of(self, worker: WorkerRecord) -> WorkerExit:
        """Wait for a worker's exit."""
        async with asyncio.timeout(30):
            while True:
                for each in self.exits:
                    if each.worker_id == worker.worker_id:
                        return each
                self._news.clear()
                await self._news.wait()

    async def says(self, container: str, text: str) -> str:
        """Wait for a line of a container that holds this."""
        logs = PodLogs(self._cluster, self._cluster.namespace, self._settings.deployment)
        async with asyncio.timeout(30):
            while True:
                async for entries in logs.tail("hello", job().spec.job_id, False, asyncio.Event()):
                    for entry in entries:
                        if entry.container == container and text in entry.message:
                            return entry.message
                await asyncio.sleep(0.05)


async def _never(_: str) -> bool:
    return False


class KubernetesKit:
    """Pods of a cluster."""

    def workers(self, data_dir: Path, **more: Any) -> PodWorkers:
        return PodWorkers(data_dir, **more)

    def api(self, *containers: dict[str, Any], **more: Any) -> ApiVersion:
        return api(*containers, **more)
