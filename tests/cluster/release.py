"""What a cluster makes of a chart's rendered objects: pods of its Deployments, behind its Services, with their rights.

    async with Release(cluster, rendered, entrypoints) as release:
        await release.ready()
        url = f"https://127.0.0.1:{await release.port('cortex-cortex-batch-edge', 443)}"
        release.kill("cortex-cortex-batch-scheduler", 0)       # kill -9; the kubelet starts the container again

It stands for the controllers that the tests' cluster does not have: a Deployment's pods are made once, and a Service is
a port of this machine for each of its pods (headless) or one that takes turns. Left out: a volume at `/tmp`, which
hides this checkout where that is below it, and `preStop`.
"""

import asyncio
import base64
import copy
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from types import TracebackType
from typing import Self

from services.common.kubernetes import PODS, Object, Resource
from tests.cluster.kit import TestCluster
from tests.cluster.kubelet.container import Container
from tests.cluster.kubelet.network import Connection, served

_TAKEN = {
    "CustomResourceDefinition": Resource(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
    ),
    "Namespace": Resource("v1", "Namespace", "namespaces", namespaced=False),
    "ConfigMap": Resource("v1", "ConfigMap", "configmaps"),
    "Secret": Resource("v1", "Secret", "secrets"),
    "ServiceAccount": Resource("v1", "ServiceAccount", "serviceaccounts"),
    "Service": Resource("v1", "Service", "services"),
}
_DOMAIN = "svc.cluster.local"


class Release:
    """An installed chart."""

    def __init__(self, cluster: TestCluster, rendered: Sequence[Object]) -> None:
        self._cluster = cluster
        self._rendered = rendered
        self._stack = AsyncExitStack()
        self._ports: dict[tuple[str, int], list[int]] = {}
        self.namespace = next(one["metadata"]["namespace"] for one in rendered if one["kind"] == "Deployment")

    async def __aenter__(self) -> Self:
        own = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await self._cluster.client.apply(_TAKEN["Namespace"], None, own, "helm")
        for kind, resource in _TAKEN.items():
            for one in self._of(kind):
                await self._cluster.client.apply(resource, one["metadata"].get("namespace"), _written(one), "helm")
        self._grant()
        for service in self._of("Service"):
            await self._serve(service)
        for deployment in self._of("Deployment"):
            for number in range(deployment["spec"]["replicas"]):
                await self._cluster.client.create(PODS, self.namespace, self._pod(deployment, number))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Wait until all pods are."""
        for deployment in self._of("Deployment"):
            for number in range(deployment["spec"]["replicas"]):
                container = None
                while container is None or not container.ready:
                    await asyncio.sleep(0.1)
                    container = self._container(deployment["metadata"]["name"], number)

    def port(self, service: str, port: int) -> int:
        """Where this machine reaches a Service's port."""
        return self._ports[service, port][0]

    def replica_port(self, service: str, port: int, number: int) -> int:
        """The same of one pod behind a headless Service."""
        return self._ports[service, port][number]

    def kill(self, deployment: str, number: int = 0) -> None:
        """Kill -9 of the container and all in it. It is started again, in the same pod."""
        container = self._container(deployment, number)
        assert container is not None
        container.kill()

    def lose(self, deployment: str, number: int = 0) -> None:
        """The pod is gone with all in it, as with its node, and no other one comes."""
        self._cluster.kubelet.pod(f"{deployment}-{number}").vanish()

    def log(self, deployment: str, number: int = 0) -> str:
        """What a container wrote in all its lives."""
        container = self._container(deployment, number)
        if container is None:
            return "its pod is not there"
        return "".join(file.read_text() for file in sorted(container.log().parent.iterdir()))

    def _of(self, kind: str) -> list[Object]:
        return [one for one in self._rendered if one["kind"] == kind]

    def _container(self, deployment: str, number: int) -> Container | None:
        try:
            return self._cluster.kubelet.pod(f"{deployment}-{number}").mains[0]
        except KeyError:
            return None

    def _grant(self) -> None:
        """A service account's token is its name; its rights are those that the chart gives it."""
        roles = {
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one
            for kind in ("Role", "ClusterRole")
            for one in self._of(kind)
        }
        for binding in self._of("RoleBinding") + self._of("ClusterRoleBinding"):
            namespace = binding["metadata"].get("namespace")
            reference = binding["roleRef"]
            role = roles[reference["kind"], namespace if reference["kind"] == "Role" else None, reference["name"]]
            for subject in binding["subjects"]:
                self._cluster.server.rights.grant(subject["name"], namespace or "", role)

    def _pod(self, deployment: Object, number: int) -> Object:
        template = copy.deepcopy(deployment["spec"]["template"])
        spec, name = template["spec"], deployment["metadata"]["name"]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            mounts = [mount for mount in container["volumeMounts"] if mount["mountPath"] != "/tmp"]
            container["volumeMounts"] = mounts
            if account := spec.get("serviceAccountName"):
                kubeconfig = self._cluster.kubeconfig_of(account)
                container["env"].append({"name": "KUBECONFIG", "value": str(kubeconfig)})
        metadata = {**template["metadata"], "name": f"{name}-{number}", "namespace": self.namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    async def _serve(self, service: Object) -> None:
        """Pods that are made from now on reach it by its name."""
        metadata, spec = service["metadata"], service["spec"]
        found = {port["port"]: await self._backends(spec, port) for port in spec["ports"]}
        self._ports |= {(metadata["name"], port): backends for port, backends in found.items()}
        self._cluster.serve(f"{metadata['name']}.{metadata['namespace']}.{_DOMAIN}", found)

    async def _backends(self, spec: Object, port: Object) -> list[int]:
        if name := spec.get("externalName"):  # another name of a Service that comes before it
            return self._ports[name.partition(".")[0], port["port"]]
        pods = [
            f"{one['metadata']['name']}-{number}"
            for one in self._of("Deployment")
            if spec["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
            for number in range(one["spec"]["replicas"])
        ]
        turns = cycle(pods)
        ways: list[Callable[[], Awaitable[Connection]]] = [lambda: self._connect(next(turns), port["targetPort"])]
        if spec.get("clusterIP") == "None":
            ways = [partial(self._connect, pod, port["targetPort"]) for pod in pods]
        return [await self._stack.enter_async_context(served(way)) for way in ways]

    async def _connect(self, name: str, port: str) -> Connection:
        try:
            pod = self._cluster.kubelet.pod(name)
        except KeyError as error:
            raise OSError(str(error)) from error
        ports = [given for container in pod.mains for given in container.spec.get("ports", [])]
        return await pod.network.connect(next(given["containerPort"] for given in ports if given["name"] == port))


def _written(thing: Object) -> Object:
    """As the API server keeps it: a Secret's `stringData` becomes `data`."""
    if "stringData" not in thing:
        return thing
    data = {key: base64.b64encode(value.encode()).decode() for key, value in thing["stringData"].items()}
    return {**{key: value for key, value in thing.items() if key != "stringData"}, "data": data}
