"""What the cluster's own tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.kit import AnyCluster, any_cluster
from tests.cluster.kubelet.kubelet import Node, unsupported


@pytest.fixture
async def cluster() -> AsyncIterator[AnyCluster]:
    """Without nodes: the one that CORTEX_TEST_KUBECONFIG names, or our own."""
    async with any_cluster() as found:
        yield found


@pytest.fixture
async def cluster_with_nodes() -> AsyncIterator[AnyCluster]:
    """The same with two nodes, one of which has two GPUs and a taint."""
    if why := unsupported():
        pytest.skip(why)
    gpu = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    plain = Node("plain")
    nodes = [plain, Node("gpu", {"nvidia.com/gpu": "2"}, {"node-group": "gpu"}, [gpu])]
    async with any_cluster(nodes) as found:
        yield found
