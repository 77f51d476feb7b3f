"""The chart, taken by a real API server: it makes checks that no published schema knows."""

import asyncio
import copy
import json
import os
import shutil

import pytest
import yaml

from services.common.kubernetes import Object, Resource
from tests.cluster.kit import AnyCluster
from tests.deploy.chart import CHART, VARIANTS, pods, render

KUBECTL = shutil.which("kubectl")
OPERATORS = "monitoring.coreos.com/v1"
"""Not part of Kubernetes."""

pytestmark = [
    pytest.mark.skipif("CORTEX_TEST_KUBECONFIG" not in os.environ, reason="needs a real API server: make test-cluster"),
    pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed"),
]


async def apply(cluster: AnyCluster, objects: list[Object], *options: str) -> str:
    """What kubectl says; an error when anything is refused."""
    assert KUBECTL is not None
    process = await asyncio.create_subprocess_exec(
        KUBECTL,
        "apply",
        "--server-side",
        *options,
        "-f",
        "-",
        env={"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(cluster.kubeconfig.parent)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate("\n".join(map(json.dumps, objects)).encode())
    assert process.returncode == 0, said.decode()
    return said.decode()


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_an_api_server_takes_all_that_the_chart_makes(cluster: AnyCluster, variant: str) -> None:
    rendered = [one for one in render(VARIANTS[variant]) if one["apiVersion"] != OPERATORS]
    wanted = {one["metadata"]["namespace"] for one in rendered if "namespace" in one["metadata"]}
    await apply(cluster, [namespace(name) for name in wanted])
    said = await apply(cluster, rendered, "--dry-run=server")
    assert len(said.splitlines()) == len(rendered), f"no warnings: {said}"


async def test_its_pods_comply_with_the_restricted_pod_security_standard(cluster: AnyCluster) -> None:
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = "cortex-restricted"
    await apply(cluster, [namespace(name, **level)])
    service_accounts = Resource("v1", "ServiceAccount", "serviceaccounts")
    for owner, found in pods(render(VARIANTS["kind"])).items():
        spec = copy.deepcopy(found)
        if account := spec.get("serviceAccountName"):
            body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
            await cluster.client.apply(service_accounts, name, body, "test")
        claimed = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
        claimed -= {volume["name"] for volume in spec["volumes"]}
        spec["volumes"] += [{"name": volume, "emptyDir": {}} for volume in claimed]  # a StatefulSet's own
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": owner, "namespace": name}, "spec": spec}
        await apply(cluster, [pod], "--dry-run=server")


async def test_custom_resources_are_defined_as_an_api_server_wants_it(cluster: AnyCluster) -> None:
    crds = [yaml.safe_load(path.read_text()) for path in (CHART / "crds").glob("*.yaml")]
    await apply(cluster, crds, "--dry-run=server")
