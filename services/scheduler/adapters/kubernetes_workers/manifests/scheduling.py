"""Which nodes a worker may run on, and which it had better."""

from collections.abc import Sequence

from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work
from services.scheduler.adapters.kubernetes_workers.settings import NodeGroup


def scheduling(work: Work) -> Json:
    """The pod's fields that concern the choice of a node; none that would say nothing."""
    settings = work.settings
    fields: Json = {
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [dict(toleration) for toleration in settings.tolerations],
        "affinity": {"nodeAffinity": affinity} if (affinity := _node_affinity(work)) else {},
        "priorityClassName": settings.priority_class,
    }
    return {name: value for name, value in fields.items() if value}


def _node_affinity(work: Work) -> Json:
    wanted = work.config.node_groups
    known = {group.name: group for group in work.settings.node_groups}
    # A group that left the settings since the API was deployed has its name as value.
    groups = list(known.values()) if wanted is None else [known.get(name) or NodeGroup(name) for name in wanted]
    label = work.settings.node_group_label
    affinity: Json = {}
    if wanted is not None:
        values = [value for group in groups for value in _values(group)]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [_in(label, values)]}
    if len(groups) > 1:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": group.priority, "preference": _in(label, _values(group))} for group in groups
        ]
    return affinity


def _values(group: NodeGroup) -> Sequence[str]:
    return group.values or (group.name,)


def _in(label: str, values: Sequence[str]) -> Json:
    return {"matchExpressions": [{"key": label, "operator": "In", "values": list(values)}]}
