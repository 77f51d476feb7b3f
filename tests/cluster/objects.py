"""Objects for the cluster's own tests, and waiting for what becomes of them."""

import asyncio
from collections.abc import Callable
from typing import Any

from services.common.kubernetes import JOBS, PODS, Object
from tests.cluster.kit import AnyCluster

SECONDS = 45.0


def config_map(name: str = "things", **data: str) -> Object:
    """A config map."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def job(name: str = "work", script: str = "exit 0", **spec: Any) -> Object:
    """An Indexed Job of one index, whose only container runs a script; `sidecar` is another script."""
    main = {"name": "main", "image": "main", "command": ["sh", "-c", script]}
    pod: Object = {"restartPolicy": "Never", "containers": [main], "terminationGracePeriodSeconds": 3}
    pod["automountServiceAccountToken"] = False
    if sidecar := spec.pop("sidecar", None):
        user = {"name": "user", "image": "user", "command": ["sh", "-c", sidecar], "restartPolicy": "Always"}
        pod["initContainers"] = [user]
    pod |= spec.pop("pod", {})
    base = {"completions": 1, "parallelism": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    base |= {"template": {"spec": pod}} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": base}


async def eventually(what: str, look: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What the look at another process gives, once it is true."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await look()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
    return found


async def pods_of(cluster: AnyCluster, name: str = "work") -> list[Object]:
    """A Job's pods."""
    found, _ = await cluster.client.list(PODS, cluster.namespace, f"batch.kubernetes.io/job-name={name}")
    return found


async def pod_that(cluster: AnyCluster, what: str, test: Callable[[Object], Any], name: str = "work") -> Object:
    """The Job's first pod for which the test holds, once there is one."""

    async def look() -> Object | None:
        return next((pod for pod in await pods_of(cluster, name) if test(pod)), None)

    found: Object = await eventually(f"a pod that {what}", look)
    return found


async def ended(cluster: AnyCluster, name: str = "work") -> Object:
    """The Job's status once it is complete or has failed."""

    async def look() -> Object | None:
        found = await cluster.client.get(JOBS, cluster.namespace, name)
        status: Object = (found or {}).get("status") or {}
        return status if {"Complete", "Failed"} & true_conditions(status) else None

    status: Object = await eventually("the Job is over", look)
    return status


def true_conditions(status: Object) -> set[str]:
    """Types of the conditions that hold."""
    return {one["type"] for one in status.get("conditions") or [] if one["status"] == "True"}


def container_state(pod: Object, name: str) -> Object:
    """A container's status; empty while there is none."""
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return next((one for one in every if one["name"] == name), {})
