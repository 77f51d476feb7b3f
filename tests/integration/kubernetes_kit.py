"""Drivers on a cluster whose pods do what a test says: it speaks for the kubelet."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Self

import msgspec
import pytest

from services.common.kubernetes import CONFIG_MAPS, JOBS, PODS, SECRETS, Cluster, Object, Resource
from services.scheduler.adapters.kubernetes_workers import KubernetesWorkerDriver
from services.scheduler.adapters.kubernetes_workers.names import selector
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, Health, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit
from tests.cluster.kit import TestCluster, any_cluster
from tests.unit import kubernetes_work
from tests.unit.kubernetes_work import JOB_ID

API = kubernetes_work.work().api


class Pods:
    """A cluster, and drivers with what they told: `async with Pods() as pods`."""

    def __init__(self, **settings: Any) -> None:
        self.test_cluster = any_cluster()
        self.settings = msgspec.structs.replace(kubernetes_work.SETTINGS, **settings)
        self.over: set[str] = set()
        self.drivers: list[Driver] = []
        self._clusters: list[Cluster] = []

    async def __aenter__(self) -> Self:
        await self.test_cluster.__aenter__()
        self.namespace = self.test_cluster.namespace
        self.cluster = await self.connect()
        return self

    async def __aexit__(self, *error: Any) -> None:
        for driver in self.drivers:
            await driver.close()
        for cluster in self._clusters:
            await cluster.close()
        await self.test_cluster.__aexit__(*error)

    @property
    def own_cluster(self) -> TestCluster:
        """The tests' own, which can be made to fail."""
        if not isinstance(self.test_cluster, TestCluster):
            pytest.skip("the faults of this test are those of the tests' own cluster")
        return self.test_cluster

    async def connect(self) -> Cluster:
        cluster = await Cluster.connect({"KUBECONFIG": str(self.test_cluster.kubeconfig)})
        self._clusters.append(cluster)
        return cluster

    async def driver(self, epoch: int = 1) -> "Driver":
        """One more leader."""
        driver = Driver(await self.connect(), self.settings, epoch)
        self.drivers.append(driver)

        async def is_over(job_id: str) -> bool:
            return job_id in self.over

        await driver.open(is_over)
        return driver

    # What there is

    async def job(self) -> Object:
        """The one Job."""
        (found,), _ = await self.cluster.list(JOBS, self.namespace)
        return found

    async def pods(self) -> list[Object]:
        found, _ = await self.cluster.list(PODS, self.namespace)
        return sorted(found, key=lambda pod: str(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))

    async def file(self, name: str, key: str) -> str:
        """What a config map holds."""
        found = await self.cluster.get(CONFIG_MAPS, self.namespace, name)
        assert found is not None
        return str(found["data"][key])

    async def is_leaving(self, worker: WorkerRecord) -> bool:
        """A worker's pod is to go, or gone."""
        uids = [pod["metadata"]["uid"] for pod in await self.pods() if "deletionTimestamp" not in pod["metadata"]]
        return worker.worker_id not in uids

    async def left(self) -> list[str]:
        """The names of all that there is of ours."""
        kinds, ours = (JOBS, PODS, CONFIG_MAPS, SECRETS), selector(self.settings.deployment)
        lists = [await self.cluster.list(kind, self.namespace, ours) for kind in kinds]
        return [each["metadata"]["name"] for found, _ in lists for each in found]

    # The kubelet's word

    async def say(self, worker: WorkerRecord, status: Object) -> None:
        """Make this the status of a worker's pod."""
        name = msgspec.json.decode(worker.detail)["pod"]
        await self.cluster.patch(PODS, self.namespace, name, {"status": status}, subresource="status")

    async def bind(self, worker: WorkerRecord) -> None:
        """A node is found for a worker's pod."""
        name = msgspec.json.decode(worker.detail)["pod"]
        target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        kind = Resource("v1", "Binding", f"pods/{name}/binding")
        await self.cluster.create(kind, self.namespace, binding)

    async def end(self, worker: WorkerRecord, code: int, **more: Any) -> None:
        """The dequeuer of a worker's pod exits."""
        terminated = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", **more}
        status = {"name": "dequeuer", "image": "d", "imageID": "", "ready": False, "restartCount": 0}
        phase = "Failed" if code else "Succeeded"
        await self.say(worker, {"phase": phase, "containerStatuses": [status | {"state": {"terminated": terminated}}]})


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until this holds, which another party brings about without a word to us."""
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


class Driver(KubernetesWorkerDriver):
    """A driver, and what it told."""

    def __init__(self, cluster: Cluster, settings: Any, epoch: int) -> None:
        numbers = count(1)

        def sign(job_id: str) -> str:
            return f"token {next(numbers)} of {job_id} by {epoch}"

        super().__init__(cluster, cluster.namespace, settings, epoch, sign)
        self.exits: dict[str, WorkerExit] = {}
        self.healths: dict[str, Health] = {}
        self.containers: dict[str, Sequence[ContainerState]] = {}
        self._something = asyncio.Event()
        self.on_exit(lambda end: self._note(self.exits, end.worker_id, end))
        self.on_health(lambda worker, health: self._note(self.healths, worker, health))
        self.on_containers(lambda worker, states: self._note(self.containers, worker, states))

    def _note(self, where: dict[str, Any], worker_id: str, told: Any) -> None:
        where[worker_id] = told
        self._something.set()

    async def told(self, what: Callable[[], Any]) -> Any:
        """Wait until something true was told; returns it."""
        while not (found := what()):
            self._something.clear()
            async with asyncio.timeout(20):
                await self._something.wait()
        return found

    async def have(self, slot: int, job: JobRecord | None = None) -> WorkerRecord:
        """Start the worker of a slot."""
        wanted = WorkerRecord(f"wanted{slot}", JOB_ID, slot, None, None)
        async with asyncio.timeout(20):
            return await self.start(API, job or kubernetes_work.job(), wanted, "unused")
