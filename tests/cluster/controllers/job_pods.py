"""A Job's pods: how they are made, and what their ends mean."""

import copy
from dataclasses import dataclass
from datetime import datetime

from tests.cluster.api.kinds import Object

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the pod failure policy says to a failed pod."""

    action: str
    """`Count` when no rule matches."""
    message: str = ""


def pod_of(job: Object, index: int | None, failures: int = 0, ignored: int = 0) -> Object:
    """A new pod of the Job."""
    template = copy.deepcopy(job["spec"]["template"])
    name, spec = job["metadata"]["name"], template["spec"]
    about = template.get("metadata") or {}
    metadata: Object = {"labels": about.get("labels") or {}, "annotations": about.get("annotations") or {}}
    metadata["finalizers"] = [*(about.get("finalizers") or []), TRACKING]
    metadata["ownerReferences"] = [_owner(job)]
    metadata["generateName"] = f"{name}-" if index is None else f"{name}-{index}-"
    if index is not None:
        metadata["labels"][INDEX] = metadata["annotations"][INDEX] = str(index)
        if "backoffLimitPerIndex" in job["spec"]:
            metadata["annotations"][FAILURES] = str(failures)
            if ignored:
                metadata["annotations"][IGNORED] = str(ignored)
        spec.setdefault("hostname", f"{name}-{index}")
        field = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": field}}
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            if not any(one["name"] == variable["name"] for one in container.get("env") or []):
                container.setdefault("env", []).append(copy.deepcopy(variable))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _owner(job: Object) -> Object:
    names = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {**names, "controller": True, "blockOwnerDeletion": True}


def index_of(pod: Object) -> int:
    """-1 for none."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def failures_before(pod: Object) -> tuple[int, int]:
    """Of its index: those that count, and those that the policy ignored."""
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get(FAILURES, 0)), int(annotations.get(IGNORED, 0))


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def terminating(pod: Object) -> bool:
    """Its deletion has been asked for."""
    return "deletionTimestamp" in pod["metadata"]


def tracked(pod: Object) -> bool:
    """Not counted yet."""
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def ready(pod: Object) -> bool:
    """As its conditions say."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def verdict(job: Object, pod: Object) -> Verdict:
    """The first rule of the policy that matches decides."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or []):
        why = (
            _exit_code(rule["onExitCodes"], pod) if "onExitCodes" in rule else _condition(rule["onPodConditions"], pod)
        )
        if why:
            return Verdict(rule["action"], f"{why} matching {rule['action']} rule at index {number}")
    return Verdict("Count")


def _exit_code(codes: Object, pod: Object) -> str:
    status = pod.get("status") or {}
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        ended = (one.get("state") or {}).get("terminated")
        if ended is None or codes.get("containerName", one["name"]) != one["name"] or ended["exitCode"] == 0:
            continue
        if (ended["exitCode"] in codes["values"]) == (codes["operator"] == "In"):
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return f"Container {one['name']} for pod {name} failed with exit code {ended['exitCode']}"
    return ""


def _condition(patterns: list[Object], pod: Object) -> str:
    there = {(one["type"], one["status"]) for one in (pod.get("status") or {}).get("conditions") or []}
    for pattern in patterns:
        if (pattern["type"], pattern.get("status", "True")) in there:
            return f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has condition {pattern['type']}"
    return ""


def ended_at(pod: Object) -> float | None:
    """When its last container ended, as seconds since the epoch."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ends = [((one.get("state") or {}).get("terminated") or {}).get("finishedAt") for one in statuses]
    moments = [datetime.fromisoformat(end).timestamp() for end in ends if end]
    return max(moments) if moments else None
