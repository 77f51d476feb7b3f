"""A container's variables, and what the downward API tells."""

import base64
import re
from typing import Any

from services.common.kubernetes import CONFIG_MAPS, SECRETS, Cluster, Object
from services.dequeuer.pod.expansion import expand
from tests.cluster.api.rules.quantities import quantity

_SUBSCRIPTED = re.compile(r"^metadata\.(annotations|labels)\['(.+)'\]$")


class ConfigurationError(Exception):
    """The container cannot be made as its pod says it: `CreateContainerConfigError`."""


async def variables_of(cluster: Cluster, pod: Object, container: Object, known: dict[str, str]) -> dict[str, str]:
    """All of them, in order; later ones may refer to earlier ones. Raises `ConfigurationError`."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        kind, reference = (
            ("configMapRef", source.get("configMapRef"))
            if "configMapRef" in source
            else ("secretRef", source["secretRef"])
        )
        data = await data_of(cluster, namespace, "configMap" if kind == "configMapRef" else "secret", reference)
        found |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
    for variable in container.get("env") or []:
        if (source := variable.get("valueFrom")) is None:
            found[variable["name"]] = expand(variable.get("value", ""), found)
            continue
        value = await _from(cluster, pod, container, source)
        if value is not None:
            found[variable["name"]] = value
    return {**known, **found}


async def data_of(cluster: Cluster, namespace: str, kind: str, reference: Object) -> dict[str, bytes]:
    """What is in a config map or secret. Raises `ConfigurationError` when it must be there and is not."""
    resource, word = (CONFIG_MAPS, "configmap") if kind == "configMap" else (SECRETS, "secret")
    name = reference.get("name") or reference["secretName"]
    thing = await cluster.get(resource, namespace, name)
    if thing is None:
        if reference.get("optional"):
            return {}
        raise ConfigurationError(f'{word} "{name}" not found')
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in (thing.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (thing.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (thing.get("binaryData") or {}).items()}


async def _from(cluster: Cluster, pod: Object, container: Object, source: Object) -> str | None:
    if reference := source.get("fieldRef"):
        return field_of(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        return resource_of(pod, container, reference)
    kind = "configMap" if "configMapKeyRef" in source else "secret"
    reference = source[f"{kind}KeyRef"]
    data = await data_of(cluster, pod["metadata"]["namespace"], kind, reference)
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        raise ConfigurationError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    return data[reference["key"]].decode()


def field_of(pod: Object, path: str) -> str:
    """A field of the pod's own object."""
    if found := _SUBSCRIPTED.match(path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return "\n".join(f'{key}="{text}"' for key, text in sorted(value.items()))
    if isinstance(value, list):
        return ",".join(one["ip"] for one in value)
    return "" if value is None else str(value)


def resource_of(pod: Object, container: Object, reference: Object) -> str:
    """What a container may use, in units of the divisor, rounded up."""
    others = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    if name := reference.get("containerName"):
        container = next(one for one in others if one["name"] == name)
    side, _, name = reference["resource"].partition(".")
    amount = quantity(((container.get("resources") or {}).get(side) or {}).get(name, "0"))
    divisor = quantity(reference.get("divisor") or "1") or 1
    return str(-int(-amount // divisor))
