"""A cluster for tests.

    async with TestCluster(nodes=[Node(resources={"nvidia.com/gpu": "2"})]) as cluster:
        environ["KUBECONFIG"] = str(cluster.kubeconfig)   # for kubectl, our client, our services
        cluster.client                                     # ours, connected
        cluster.api  # the verbs without HTTP, to look at objects and to change them
        cluster.images.entrypoints["cortex-batch/dequeuer:1"] = [sys.executable, "-m", "services.dequeuer"]
        cluster.serve("cortex-scheduler", {50051: [port]}) # pods reach our port on this machine by that name and port;
  # two ports: two addresses; "localhost" works too

Faults:

        cluster.images.missing.add("u")                    # ErrImagePull, ImagePullBackOff; pods go on once it is back
        cluster.kubelet.kill_for_memory(pod, container)  # OOMKilled, exit code 137; so does more than the memory limit
        cluster.kubelet.evict(pod)                         # Evicted, DisruptionTarget
        cluster.kubelet.lose(node)  # its processes end; NotReady, tainted, pods deleted;
                                                           # they are replaced once the Node is deleted, as in a cloud
        await cluster.kubelet.find_again(node)
        await cluster.client.delete(PODS, namespace, pod)
        await cluster.away(30)                             # the API server and its controllers do not answer so long
        cluster.cut()                                      # watches and all other connections break
        cluster.compact()                                  # who goes on with an old watch gets 410
        cluster.server.refuse("POST", "/jobs$", 500)       # the next such request fails

A container is a process of this machine in the pod's own network namespace (several pods listen on the same port), with
the pod's volumes where it mounts them; its working directory is this checkout and `python` is ours.
"""

import asyncio
import json
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from services.common.kubernetes import NODES, Cluster, Resource
from tests.cluster.api.api import Api
from tests.cluster.api.server import Server
from tests.cluster.controllers.garbage import GarbageCollector
from tests.cluster.controllers.jobs import JobController
from tests.cluster.controllers.nodes import NodeController
from tests.cluster.kubelet.images import Images
from tests.cluster.kubelet.kubelet import Kubelet, Node
from tests.cluster.kubelet.network import Service
from tests.cluster.kubelet.settings import Settings

_NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
_SERVICE_ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")


class AnyCluster(ABC):
    """What every cluster offers to tests."""

    client: Cluster
    kubelet: Kubelet
    namespace: str = "default"
    """The tests' own; the kubeconfig's context has it."""

    def __init__(self, nodes: list[Node] | None, images: Images | None) -> None:
        self.images = images or Images()
        self._nodes = nodes
        self._stack = AsyncExitStack()
        self._directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-", ignore_cleanup_errors=True))
        )

    @property
    def kubeconfig(self) -> Path:
        """What `KUBECONFIG` has to say to reach it."""
        return self._directory / "kubeconfig"

    @abstractmethod
    async def _connect(self) -> None:
        """Write the kubeconfig and set `client`."""

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
            if self._nodes is not None:
                await self._start_kubelet(self._nodes)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start_kubelet(self, nodes: list[Node]) -> None:
        settings = Settings(self._directory / "pods", self.images)
        self.kubelet = Kubelet(self.client, settings, nodes, self.namespace if self.real else None)
        ready = asyncio.Event()
        running = asyncio.create_task(self.kubelet.run(ready))
        self._stack.push_async_callback(_ended, running)
        await ready.wait()

    def serve(self, name: str, ports: dict[int, list[int]]) -> None:
        """Pods that start from now on reach ports of this machine as a service's: by its port, the backends' ports."""
        self.kubelet.settings.services.append(
            Service(name, {port: tuple(backends) for port, backends in ports.items()})
        )

    @property
    @abstractmethod
    def real(self) -> bool:
        """Whether it is a real control plane, with a real one's delays."""


class TestCluster(AnyCluster):
    """The tests' own cluster: an API server and its controllers in this process, and a kubelet as their client."""

    __test__ = False
    real = False

    def __init__(
        self,
        nodes: list[Node] | None = None,
        images: Images | None = None,
        backoff_seconds: float = 0.1,
        node_grace_seconds: float = 3.0,
        eviction_seconds: float | None = 0.5,
    ) -> None:
        """`nodes` None: no kubelet, pods stay pending; `backoff_seconds`: of a Job's first replacement, really 10 s."""
        super().__init__(nodes, images)
        self.api = Api()
        self._loops = [
            JobController(self.api, backoff_seconds).loop,
            GarbageCollector(self.api).loop,
            NodeController(self.api, node_grace_seconds, eviction_seconds).loop,
        ]
        self.server = Server(self.api)

    def kubeconfig_of(self, token: str) -> Path:
        """The same for somebody who may do only what `server.rights` grants to this token."""
        file = self.kubeconfig.with_name(f"kubeconfig-{token}")
        file.write_text(json.dumps(_kubeconfig(self.server.url, {"token": token})))
        return file

    async def _connect(self) -> None:
        await self.server.start()
        self._stack.push_async_callback(self.server.stop)
        for loop in self._loops:
            self._stack.push_async_callback(_ended, asyncio.create_task(loop.run()))
        self.kubeconfig.write_text(json.dumps(_kubeconfig(self.server.url)))
        self.client = await Cluster.connect({"KUBECONFIG": str(self.kubeconfig)})
        self._stack.push_async_callback(self.client.close)

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


class RealCluster(AnyCluster):
    """A control plane that somebody else started and that has no nodes: a namespace of it, with our kubelet."""

    real = True

    def __init__(self, kubeconfig: str, nodes: list[Node] | None = None, images: Images | None = None) -> None:
        super().__init__(nodes, images)
        self._theirs = kubeconfig
        self.namespace = f"tests-{uuid.uuid4().hex[:10]}"

    async def _connect(self) -> None:
        configuration = yaml.safe_load(Path(self._theirs).read_text())
        for context in configuration["contexts"]:
            context["context"]["namespace"] = self.namespace
        self.kubeconfig.write_text(json.dumps(configuration))
        self.client = await Cluster.connect({"KUBECONFIG": str(self.kubeconfig)})
        self._stack.push_async_callback(self.client.close)
        names = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await self.client.create(_NAMESPACES, None, names)
        self._stack.push_async_callback(self.client.delete, _NAMESPACES, None, self.namespace)
        for node in self._nodes or []:
            self._stack.push_async_callback(self.client.delete, NODES, None, node.name)
        while await self.client.get(_SERVICE_ACCOUNTS, self.namespace, "default") is None:
            await asyncio.sleep(0.05)  # its controller makes it; before that no pod is taken


def any_cluster(nodes: list[Node] | None = None, images: Images | None = None) -> AnyCluster:
    """The control plane that CORTEX_TEST_KUBECONFIG names, or else the tests' own cluster."""
    if kubeconfig := os.environ.get("CORTEX_TEST_KUBECONFIG"):
        return RealCluster(kubeconfig, nodes, images)
    return TestCluster(nodes, images)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _kubeconfig(server: str, user: dict[str, str] | None = None) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server}}],
        "users": [{"name": "tests", "user": user or {}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": "default"}}],
        "current-context": "tests",
    }
