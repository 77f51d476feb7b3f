"""The whole system with its workers as pods: `cortex up` beside the tests' cluster, whose kubelet runs them here."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from services.common.kubernetes import CONFIG_MAPS, JOBS, PODS, SECRETS, Object
from tests.cluster.kit import AnyCluster, TestCluster, any_cluster
from tests.cluster.kubelet.kubelet import Node
from tests.e2e.system import System

OURS = "cortex.dev/batch=worker"
IMAGE = "cortex-batch/dequeuer:1"


class Pods:
    """A system and its cluster. What waits for the system runs in a thread: the cluster lives in this one."""

    def __init__(self, system: System, cluster: AnyCluster) -> None:
        self.system = system
        self.cluster = cluster
        self.namespace = cluster.namespace

    @property
    def own_cluster(self) -> TestCluster:
        """The tests' own, which can be made to fail."""
        if not isinstance(self.cluster, TestCluster):
            pytest.skip("the faults of this test are those of the tests' own cluster")
        return self.cluster

    async def deploy(self, name: str = "hello", **pod: Any) -> None:
        """Deploy the journeys' container."""
        await asyncio.to_thread(self.system.deploy, name, **pod)

    async def submit(self, items: list[Any], name: str = "hello", **fields: Any) -> str:
        """Submit a job; its id."""
        return await asyncio.to_thread(self.system.submit, items, name, **fields)

    async def wait(self, job_id: str, name: str = "hello") -> dict[str, Any]:
        """Wait for a job's end; its `GET` answer."""
        async with asyncio.timeout(90):
            return await asyncio.to_thread(self.system.wait, job_id, name)

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job's status now."""
        return await asyncio.to_thread(self.system.job, job_id)

    async def done(self, count: int) -> None:
        """Wait until so many different items are done."""
        await until(lambda: len(self.system.done()) >= count)

    async def counts(self, job_id: str, **wanted: int) -> dict[str, Any]:
        """Wait until the workers are counted so; the job."""
        while True:
            job = await self.job(job_id)
            if job.get("worker_counts") == wanted:
                return job
            await asyncio.sleep(0.1)

    async def pods(self) -> list[Object]:
        """The workers' pods."""
        found, _ = await self.cluster.client.list(PODS, self.namespace)
        return found

    async def running(self) -> Object:
        """A pod whose containers run."""
        found: list[Object] = []

        async def look() -> bool:
            found[:] = [pod for pod in await self.pods() if pod["status"].get("phase") == "Running"]
            return bool(found)

        while not await look():
            await asyncio.sleep(0.05)
        return found[0]

    async def nothing_is_left(self) -> None:
        """Wait until all that belonged to jobs is gone."""
        async with asyncio.timeout(30):
            for resource in (JOBS, PODS, CONFIG_MAPS, SECRETS):
                while (await self.cluster.client.list(resource, self.namespace, OURS))[0]:
                    await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until this holds of other processes, which send no events."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def pods(
    directory: Path, nodes: list[Node] | None = None, environ: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[Pods]:
    """A system for one test. `settings` are more of the driver's."""
    async with any_cluster(nodes or [Node()]) as cluster:
        cluster.images.entrypoints[IMAGE] = [sys.executable, "-P", "-m", "services.dequeuer"]
        told = {
            "dequeuer_image": IMAGE,
            "scheduler_address": "dns:///cortex-scheduler:8889",
            "public_url": "http://cortex-gateway:8888",
            "otlp_endpoint": "http://cortex-collector:4317",
            "node_selector": {},
            "grace_seconds": 15,
        }
        file = directory / "kubernetes.yaml"
        file.write_text(yaml.safe_dump(told | settings))
        variables = {
            "CORTEX_WORKERS": "kubernetes",
            "CORTEX_KUBERNETES_SETTINGS": str(file),
            "KUBECONFIG": str(cluster.kubeconfig),
            "CORTEX_RECONNECT_GRACE": "3",
            **(environ or {}),
        }
        system = await asyncio.to_thread(System, directory, variables)
        try:
            (collector,) = [psutil.Process(process.pid) for process in system.processes("services.collector")]
            cluster.serve("cortex-scheduler", {8889: [_port(system.grpc_address)]})
            cluster.serve("cortex-gateway", {8888: [_port(system.url)]})
            cluster.serve("cortex-collector", {4317: [int(collector.environ()["CORTEX_COLLECTOR_PORT"])]})
            yield Pods(system, cluster)
        finally:
            await asyncio.to_thread(system.close)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2].strip("/"))
