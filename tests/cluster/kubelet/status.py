"""A pod's status, from its containers."""

from services.common.kubernetes import Object
from tests.cluster.api.clock import now
from tests.cluster.kubelet.container import Container

_OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def status_of(pod: Object, initial: list[Container], mains: list[Container], known: Object) -> Object:
    """What to report. `known` are facts that containers do not tell: phase, reason, message, addresses, conditions."""
    phase = known.get("phase") or _phase(initial, mains)
    sidecars = [one for one in initial if one.sidecar]
    initialized = _initialized(initial) or phase == "Succeeded"
    ready = phase == "Running" and all(one.running and one.ready for one in [*mains, *sidecars])
    why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    conditions = [
        _condition("PodReadyToStartContainers", bool(known.get("podIP")) and phase in ("Pending", "Running")),
        _condition("Initialized", initialized, "ContainersNotInitialized"),
        _condition("Ready", ready, why),
        _condition("ContainersReady", ready, why),
        _condition("PodScheduled", True),
    ]
    status = {name: value for name, value in known.items() if name != "conditions"}
    status |= {"phase": phase, "containerStatuses": [one.status(_image_id(one)) for one in mains]}
    if initial:
        status["initContainerStatuses"] = [_initial_status(one) for one in initial]
    before = {one["type"]: one for one in (pod.get("status") or {}).get("conditions") or []}
    others = [one for name, one in before.items() if name not in _OURS]
    told = {one["type"] for one in known.get("conditions") or []}
    status["conditions"] = [_kept(one, before.get(one["type"])) for one in conditions]
    status["conditions"] += [one for one in others if one["type"] not in told] + (known.get("conditions") or [])
    return status


def final_phase(initial: list[Container], mains: list[Container]) -> str:
    """Of a pod whose containers will run no more."""
    inits = [one for one in initial if not one.sidecar]
    good = all(one.exit_code == 0 for one in [*mains, *inits])
    return "Succeeded" if good else "Failed"


def _initial_status(container: Container) -> Object:
    status = container.status(_image_id(container))
    return status | ({"ready": True} if not container.sidecar and container.exit_code == 0 else {})


def _phase(initial: list[Container], mains: list[Container]) -> str:
    started = any(one.restarts >= 0 for one in mains)
    return "Running" if started and _initialized(initial) else "Pending"


def _initialized(initial: list[Container]) -> bool:
    return all(one.has_run.is_set() if one.sidecar else one.exit_code == 0 for one in initial)


def _image_id(container: Container) -> str:
    return f"tests/{container.spec['image']}@sha256:{0:064x}"


def _condition(name: str, true: bool, reason: str = "") -> Object:
    condition: Object = {"type": name, "status": str(bool(true)), "lastProbeTime": None, "lastTransitionTime": now()}
    return condition | ({"reason": reason} if reason and not true else {})


def _kept(new: Object, before: Object | None) -> Object:
    """The time says when it changed."""
    if before is None or before["status"] != new["status"]:
        return new
    return {**new, "lastTransitionTime": before["lastTransitionTime"]}
