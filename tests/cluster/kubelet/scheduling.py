"""Which node a pod goes to."""

from collections import Counter
from decimal import Decimal

from services.common.kubernetes import Object
from tests.cluster.api.rules.quantities import quantity
from tests.cluster.api.selectors import expression_holds

_BLOCKING = ("NoSchedule", "NoExecute")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def requests_of(pod: Object) -> Counter[str]:
    """What a pod takes: its containers and sidecars together, or an init container beside the sidecars before it."""
    spec = pod["spec"]
    sidecars: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars += _amounts(container)
            most |= sidecars
        else:
            most |= sidecars + _amounts(container)
    mains: Counter[str] = Counter()
    for container in spec["containers"]:
        mains += _amounts(container)
    return (mains + sidecars) | most | Counter({"pods": 1})


def _amounts(container: Object) -> Counter[str]:
    """In thousandths, so that they are whole numbers."""
    requests = (container.get("resources") or {}).get("requests") or {}
    return Counter({name: int(quantity(text) * 1000) for name, text in requests.items()})


def place(pod: Object, nodes: list[Object], pods: list[Object]) -> tuple[str | None, str]:
    """The best node's name; or None, and why there is none."""
    reasons: Counter[str] = Counter()
    fitting: list[tuple[int, int, str]] = []
    for node in nodes:
        name = node["metadata"]["name"]
        there = [one for one in pods if one["spec"].get("nodeName") == name and _holds(one)]
        if why := _obstacle(pod, node, there):
            reasons[why] += 1
        else:
            fitting.append((-_preference(pod, node), len(there), name))
    if fitting:
        return min(fitting)[2], ""
    told = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items()))
    return None, f"0/{len(nodes)} nodes are available: {told}."


def _holds(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _obstacle(pod: Object, node: Object, there: list[Object]) -> str:
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    for taint in spec.get("taints") or []:
        if taint["effect"] in _BLOCKING and not any(
            _tolerates(one, taint) for one in pod["spec"].get("tolerations") or []
        ):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not _selected(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    free = {
        name: Decimal(quantity(text)) * 1000
        for name, text in ((node.get("status") or {}).get("allocatable") or {}).items()
    }
    for one in there:
        for name, amount in requests_of(one).items():
            free[name] = free.get(name, Decimal(0)) - amount
    for name, amount in requests_of(pod).items():
        if amount > free.get(name, Decimal(0)):
            return f"Insufficient {name}"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _selected(pod: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    wanted: dict[str, str] = pod["spec"].get("nodeSelector") or {}
    if not wanted.items() <= labels.items():
        return False
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED)
    return affinity is None or any(_matches(term, node) for term in affinity["nodeSelectorTerms"])


def _preference(pod: Object, node: Object) -> int:
    preferred = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(_PREFERRED) or []
    return sum(one["weight"] for one in preferred if _matches(one["preference"], node))


def _matches(term: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    expressions = [(one, labels) for one in term.get("matchExpressions") or []]
    expressions += [(one, fields) for one in term.get("matchFields") or []]
    return bool(expressions) and all(expression_holds(one, values) for one, values in expressions)
