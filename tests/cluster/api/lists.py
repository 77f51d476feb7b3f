"""Which lists are maps in disguise: their entries are told apart by keys, and merged one by one; which maps are not.

Built-in resources are described by field names, custom ones by their schema's `x-kubernetes-list-type`.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.cluster.api.kinds import Kind, Object

Keys = tuple[str, ...]

_BUILT_IN: dict[str, Keys] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "claims": ("name",),
}
_SERVICE_PORTS: Keys = ("port", "protocol")
_SETS = ("finalizers",)
_DEFAULTS = {"protocol": "TCP"}
SET: Keys = ()
"""The list is a set of scalars."""
WHOLE: Keys = ("*",)
"""It is a map that is owned and replaced as a whole."""

Listing = Callable[[tuple[str, ...]], Keys | None]
"""The keys of the list at a path of field names; `SET`; None for a list that is replaced whole; of a map: `WHOLE`."""


def lists_of(kind: Kind) -> Listing:
    """How this resource's lists behave."""
    if not kind.custom:
        return lambda path: _built_in(kind, path)
    return lambda path: _by_schema(kind.schema or {}, path) if path[0] != "metadata" else _built_in(kind, path)


def _built_in(kind: Kind, path: tuple[str, ...]) -> Keys | None:
    if path[-1] == "ports" and kind.name == "Service":
        return _SERVICE_PORTS
    if path[-1] in _SETS:
        return SET
    if kind.name == "Job" and path[-1] == "conditions":
        return None
    return _BUILT_IN.get(path[-1])


def _by_schema(schema: Object, path: tuple[str, ...]) -> Keys | None:
    for step in path:
        if schema.get("type") == "array":
            schema = schema.get("items") or {}
        more = schema.get("additionalProperties")
        schema = (schema.get("properties") or {}).get(step) or (more if isinstance(more, dict) else {})
    if schema.get("x-kubernetes-map-type") == "atomic":
        return WHOLE
    match schema.get("x-kubernetes-list-type"):
        case "map":
            return tuple(schema["x-kubernetes-list-map-keys"])
        case "set":
            return SET
    return None


def entry_key(entry: Any, keys: Keys) -> str:
    """What tells this entry apart, as text: `k:{"name":"x"}` or `v:"x"`, as in managed fields."""
    if keys == SET or not isinstance(entry, dict):
        return f"v:{json.dumps(entry)}"
    known = {key: entry.get(key, _DEFAULTS.get(key)) for key in sorted(keys)}
    values = {key: value for key, value in known.items() if value is not None}
    return f"k:{json.dumps(values, separators=(',', ':'))}"
