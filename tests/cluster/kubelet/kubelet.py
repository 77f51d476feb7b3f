"""The nodes, and the loops over all their pods: bind, run, report, stay in touch."""

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field

from services.common.errors import CortexError
from services.common.events import wait_within
from services.common.kubernetes import LEASES, NODES, PODS, Change, Cluster, Followed, Object, Resource, follow
from tests.cluster.api.clock import micro_now, now
from tests.cluster.kubelet.container import Container
from tests.cluster.kubelet.endpoint import Endpoint
from tests.cluster.kubelet.pod import Pod
from tests.cluster.kubelet.scheduling import place
from tests.cluster.kubelet.settings import Settings

log = logging.getLogger(__name__)

_BINDINGS = Resource("v1", "Binding", "bindings")
_LEASE_NAMESPACE = "kube-node-lease"
_AGAIN_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that there is not."""

    name: str = "node-1"
    resources: dict[str, str] = field(default_factory=dict)
    """More than cpu, memory and pods: `{"nvidia.com/gpu": "4"}`."""
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Object] = field(default_factory=list)

    def capacity(self) -> dict[str, str]:
        """All resources."""
        return {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "110", **self.resources}


class Kubelet:
    """All nodes of a cluster."""

    def __init__(self, cluster: Cluster, settings: Settings, nodes: list[Node], namespace: str | None = None) -> None:
        """`namespace`: whose pods it runs; None for all."""
        self._cluster = cluster
        self._namespace = namespace
        self.settings = settings
        self._nodes = {node.name: node for node in nodes}
        self._lost: set[str] = set()
        self._pods: dict[str, Object] = {}
        """Every pod that there is, by uid."""
        self._running: dict[str, Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unplaced = asyncio.Event()
        self._endpoint = Endpoint(self._find)
        self._addresses = 0

    # For tests

    def pod(self, name: str) -> Pod:
        """A pod that runs here. Raises KeyError."""
        for one in self._running.values():
            if one.pod["metadata"]["name"] == name:
                return one
        raise KeyError(f"no pod {name} runs here")

    def kill_for_memory(self, pod: str, container: str) -> None:
        """As if it had taken more than its limit."""
        self.pod(pod).container(container).kill_for_memory()

    def evict(self, pod: str) -> None:
        """The node is under pressure."""
        self.pod(pod).evict("Evicted", "The node was low on resource: memory.")

    def lose(self, node: str) -> None:
        """Its power is gone: processes, reports and all."""
        self._lost.add(node)
        for one in self._running.values():
            if one.pod["spec"].get("nodeName") == node:
                one.vanish()

    async def find_again(self, node: str) -> None:
        """It was started again, and knows nothing of what ran on it."""
        self._lost.discard(node)
        await self._register(self._nodes[node])

    async def add_node(self, node: Node) -> None:
        """One more machine."""
        self._nodes[node.name] = node
        await self._register(node)

    # The loops

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled; then everything that runs here ends."""
        await self._endpoint.start()
        try:
            for node in self._nodes.values():
                await self._register(node)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._schedule())
                group.create_task(self._heartbeats())
                ready.set()
        finally:
            for one in self._running.values():
                one.vanish()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._endpoint.stop()

    async def _register(self, node: Node) -> None:
        labels = {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **node.labels,
        }
        thing = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}
        spec: Object = {"taints": node.taints} if node.taints else {}
        while True:
            try:
                if await self._cluster.get(NODES, None, node.name) is None:
                    await self._cluster.create(NODES, None, {**thing, "spec": spec})
                await self._cluster.patch(NODES, None, node.name, {"status": self._status(node)}, "status")
                await self._beat(node.name)
                return
            except CortexError as error:
                log.info("node %s: %s", node.name, error.message)
                await asyncio.sleep(_AGAIN_SECONDS)

    def _status(self, node: Node) -> Object:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        ready |= {"lastHeartbeatTime": now(), "lastTransitionTime": now()}
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": node.name}]
        status: Object = {"capacity": node.capacity(), "allocatable": node.capacity(), "conditions": [ready]}
        return status | {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self._endpoint.port}}}

    async def _heartbeats(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(self.settings.heartbeat_seconds)
            beats += 1
            for name in self._nodes.keys() - self._lost:
                with contextlib.suppress(CortexError):
                    await self._beat(name)
                    if beats % 4 == 0:  # the lease says that the node lives, this that it is ready
                        await self._cluster.patch(
                            NODES, None, name, {"status": self._status(self._nodes[name])}, "status"
                        )

    async def _beat(self, node: str) -> None:
        spec = {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": micro_now()}
        names = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": node}}
        await self._cluster.apply(LEASES, _LEASE_NAMESPACE, {**names, "spec": spec}, "kubelet")

    async def _follow(self) -> None:
        async for news in follow(self._cluster, PODS, self._namespace):
            if isinstance(news, Followed):
                there = {pod["metadata"]["uid"]: pod for pod in news.objects}
                for uid in self._pods.keys() - there.keys():
                    self._forget(uid)
                for pod in there.values():
                    self._see(pod)
            elif isinstance(news, Change):
                if news.deleted:
                    self._forget(news.object["metadata"]["uid"])
                else:
                    self._see(news.object)

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        if uid in self._running:
            self._running[uid].vanish()
        self._unplaced.set()

    def _see(self, pod: Object) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        self._pods[uid] = pod
        if uid in self._running:
            self._running[uid].update(pod)
        elif node is None or pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._unplaced.set()
            if node in self._nodes.keys() - self._lost and "deletionTimestamp" in pod["metadata"]:
                self._start(pod)
        elif node in self._nodes.keys() - self._lost:
            self._start(pod)

    def _start(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self._addresses += 1
        address = f"10.77.{self._addresses // 250 % 256}.{self._addresses % 250 + 1}"
        runner = Pod(self._cluster, self.settings, pod, address)
        runner.update(pod)
        self._running[uid] = runner
        task = asyncio.create_task(runner.run())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._unplaced.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("pod %s broke its kubelet", uid, exc_info=task.exception())
        runner = self._running.get(uid)
        if runner is not None and uid not in self._pods:
            del self._running[uid]

    async def _schedule(self) -> None:
        while True:
            await wait_within(self._unplaced, _AGAIN_SECONDS if self._waiting() else None)
            self._unplaced.clear()
            waiting = self._waiting()
            if not waiting:
                continue
            with contextlib.suppress(CortexError):
                nodes, _ = await self._cluster.list(NODES, None)
                nodes = [node for node in nodes if node["metadata"]["name"] in self._nodes]
                for pod in waiting:
                    await self._place(pod, nodes)

    def _waiting(self) -> list[Object]:
        return [
            pod
            for pod in self._pods.values()
            if not pod["spec"].get("nodeName")
            and "deletionTimestamp" not in pod["metadata"]
            and pod["spec"].get("schedulerName") == "default-scheduler"
            and not pod["spec"].get("schedulingGates")
            and pod["status"].get("phase") == "Pending"
        ]

    async def _place(self, pod: Object, nodes: list[Object]) -> None:
        metadata = pod["metadata"]
        node, why = place(pod, nodes, list(self._pods.values()))
        if node is not None:
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            names = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": names, "target": target}
            await self._cluster.create(_BINDINGS, metadata["namespace"], binding)
            self._pods[metadata["uid"]] = {**pod, "spec": {**pod["spec"], "nodeName": node}}
            return
        known: Object = next(
            (one for one in pod["status"].get("conditions") or [] if one["type"] == "PodScheduled"), {}
        )
        if known.get("message") != why:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
            others = [one for one in pod["status"].get("conditions") or [] if one["type"] != "PodScheduled"]
            status = {"conditions": [*others, {**condition, "lastTransitionTime": now()}]}
            await self._cluster.patch(PODS, metadata["namespace"], metadata["name"], {"status": status}, "status")

    def _find(self, namespace: str, pod: str, container: str) -> Container | None:
        for one in self._running.values():
            if (one.pod["metadata"]["namespace"], one.pod["metadata"]["name"]) == (namespace, pod):
                return one.container(container)
        return None


def unsupported() -> str:
    """Why this machine cannot run pods; empty when it can."""
    missing = [tool for tool in ("unshare", "nsenter") if not _installed(tool)]
    return f"{' and '.join(missing)} (util-linux) is not installed" if missing else ""


def _installed(tool: str) -> bool:
    return any(os.access(os.path.join(path, tool), os.X_OK) for path in os.get_exec_path())  # noqa: PTH118
