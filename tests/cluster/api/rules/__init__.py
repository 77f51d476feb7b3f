"""What a real API server refuses: each rule's sentence has the real one's form, `path: Kind of mistake: more`."""

from collections.abc import Callable

from tests.cluster.api import crds, expressions, schema
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.rules import jobs, metadata, others, pods

Rule = Callable[[Object, Object | None], list[str]]
"""Of the new object, and the one that was there before."""

_RULES: dict[str, Rule] = {
    "pods.": pods.mistakes,
    "jobs.batch": jobs.mistakes,
    "configmaps.": others.config_map,
    "secrets.": others.secret,
    "services.": others.service,
    "nodes.": others.node,
    "leases.coordination.k8s.io": others.lease,
    "customresourcedefinitions.apiextensions.k8s.io": lambda new, old: crds.mistakes(new),
}


def mistakes(kind: Kind, new: Object, old: Object | None) -> list[str]:
    """All that is wrong with an object that somebody wants to store."""
    found = metadata.mistakes(kind, new)
    if kind.custom:
        described = kind.schema or {}
        found += schema.mistakes({name: part for name, part in new.items() if name != "metadata"}, described)
        return found or expressions.mistakes(new, old, described)
    rule = _RULES.get(kind.key)
    return found + (rule(new, old) if rule else [])
