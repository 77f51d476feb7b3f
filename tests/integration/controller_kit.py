"""A cluster with our custom resources, a real scheduler whose workers the test plays, and the controller's process."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.common.kubernetes import BATCH_APIS, BATCH_JOBS, Cluster, Followed, Object, Resource, follow
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.object_stores import ObjectStores
from tests.cluster.kit import AnyCluster, any_cluster
from tests.integration.scheduler_kit import Kit, ScriptedDriver, scheduler

CRDS = Path(__file__).parents[2] / "deploy/helm/cortex-batch/crds"
KUBECTL = shutil.which("kubectl")
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
SECONDS = 30.0

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


@dataclass
class Controller:
    """The controller as a process: it may be killed and started again."""

    environ: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "services.controller"]
            self.process = await asyncio.create_subprocess_exec(*command, env={**self.environ}, stderr=log)

    async def end(self, number: int) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)


@dataclass
class Resources:
    """The cluster as a user of custom resources sees it."""

    cluster: Cluster
    kubeconfig: Path
    namespace: str
    controller: Controller

    async def kubectl(self, *arguments: str, text: str = "", code: int = 0) -> str:
        """What the real kubectl says."""
        assert KUBECTL is not None
        environ = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *(("-n", self.namespace) if "-n" not in arguments else ()),
            *arguments,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate(text.encode())
        assert process.returncode == code, said.decode()
        return said.decode()

    async def apply(self, resource: Resource, name: str, spec: Object, namespace: str = "") -> Object:
        """As `kubectl apply --server-side` does it."""
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace or self.namespace},
            "spec": spec,
        }
        return await self.cluster.apply(resource, namespace or self.namespace, body, "test")

    async def apply_api(self, name: str = "hello", namespace: str = "", **pod: Any) -> Object:
        container = {"name": "api", "image": "none", "command": ["serve"]}
        return await self.apply(BATCH_APIS, name, {"pod": {"containers": [container], **pod}}, namespace)

    async def apply_job(self, name: str, items: Path, **fields: Any) -> Object:
        files = {"s3_paths": [items.as_uri()], "batch_size": 1}
        spec = {"api_name": "hello", "workers": 1, "delimited_files": files, **fields}
        return await self.apply(BATCH_JOBS, name, spec)

    async def delete(self, resource: Resource, name: str) -> None:
        await self.cluster.delete(resource, self.namespace, name)

    async def until(
        self, resource: Resource, name: str, condition: Callable[[Object], Any], namespace: str = ""
    ) -> Object:
        """The resource as soon as the condition holds for it."""
        return await self._until(resource, name, namespace or self.namespace, lambda found: found and condition(found))

    async def gone(self, resource: Resource, name: str) -> None:
        """Wait until it is not there any more."""
        await self._until(resource, name, self.namespace, lambda found: not found)

    async def _until(self, resource: Resource, name: str, namespace: str, holds: Callable[[Object], Any]) -> Object:
        now: Object = {}
        try:
            async with asyncio.timeout(SECONDS), aclosing(follow(self.cluster, resource, namespace)) as all_news:
                async for news in all_news:
                    if isinstance(news, Followed):
                        now = next((each for each in news.objects if each["metadata"]["name"] == name), {})
                    elif news.object["metadata"]["name"] == name:
                        now = {} if news.deleted else news.object
                    if holds(now):
                        return now
        except TimeoutError:
            log = self.controller.log.read_text()
            raise AssertionError(f"not within {SECONDS:g} s; last {json.dumps(now, indent=1)}\n{log}") from None
        raise AssertionError("following never ends")


def ready(api: Object) -> str:
    """The status of its condition."""
    return next((str(each["status"]) for each in status(api).get("conditions", ()) if each["type"] == "Ready"), "")


def status(resource: Object) -> Object:
    found: Object = resource.get("status") or {}
    return found


def refused_as(resource: Object) -> str:
    """The kind of error that it tells; "" for none."""
    return next(
        (str(each["reason"]) for each in status(resource).get("conditions", ()) if each["status"] == "False"), ""
    )


@asynccontextmanager
async def mirrored(directory: Path, cluster: AnyCluster, address: str, **more: str) -> AsyncIterator[Resources]:
    """A controller that mirrors a cluster's resources to the scheduler at this address."""
    environ = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        "CORTEX_SCHEDULER_ADDRESS": address,
        "CORTEX_HEALTH_ADDRESS": "127.0.0.1:0",
        **more,
    }
    client = await Cluster.connect({"KUBECONFIG": str(cluster.kubeconfig)})
    controller = Controller(environ, directory / "controller.log")
    try:
        found = Resources(client, cluster.kubeconfig, client.namespace, controller)
        await found.kubectl("apply", "-f", str(CRDS))
        await controller.start()
        yield found
    finally:
        if controller.process is not None:
            await controller.kill()
        await client.close()


@asynccontextmanager
async def scheduled(directory: Path) -> AsyncIterator[Kit]:
    """A scheduler whose jobs may read this directory."""
    async with scheduler(directory, ScriptedDriver(), objects=ObjectStores(AwsSession({}), (directory,))) as kit:
        yield kit


@asynccontextmanager
async def system(directory: Path, **more: str) -> AsyncIterator[tuple[Resources, Kit]]:
    """All of it."""
    async with (
        any_cluster() as cluster,
        scheduled(directory) as kit,
        mirrored(directory, cluster, kit.address, **more) as found,
    ):
        yield found, kit
