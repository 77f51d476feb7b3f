"""Config maps, secrets, leases, services, nodes."""

import base64
import binascii
import re

from tests.cluster.api.kinds import Object
from tests.cluster.api.rules.metadata import label_rules, qualified_name_rules

_MOST_BYTES = 1024 * 1024
_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def config_map(new: Object, old: Object | None) -> list[str]:
    """Keys, and all the values together."""
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    found = _keys(data, "data") + _keys(binary, "binaryData")
    found += [
        f"data[{key}]: Invalid value: duplicate of key present in binaryData" for key in data.keys() & binary.keys()
    ]
    if sum(len(value.encode()) for value in data.values()) + _decoded_bytes(binary, "binaryData", found) > _MOST_BYTES:
        found.append(f"data: Too long: may not be more than {_MOST_BYTES} bytes")
    return found + _immutable(new, old, ("data", "binaryData"))


def secret(new: Object, old: Object | None) -> list[str]:
    """The same, in base64."""
    data = new.get("data") or {}
    found = _keys(data, "data")
    if _decoded_bytes(data, "data", found) > _MOST_BYTES:
        found.append(f"data: Too long: may not be more than {_MOST_BYTES} bytes")
    if new.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in data:
        found.append("data[.dockerconfigjson]: Required value")
    if old is not None and old.get("type") != new.get("type"):
        found.append(f'type: Invalid value: "{new.get("type")}": field is immutable')
    return found + _immutable(new, old, ("data",))


def lease(new: Object, old: Object | None) -> list[str]:
    """Durations are positive."""
    spec = new.get("spec") or {}
    found = []
    if (seconds := spec.get("leaseDurationSeconds")) is not None and seconds <= 0:
        found.append(f"spec.leaseDurationSeconds: Invalid value: {seconds}: must be greater than 0")
    if (transitions := spec.get("leaseTransitions", 0)) < 0:
        found.append(f"spec.leaseTransitions: Invalid value: {transitions}: must be greater than or equal to 0")
    return found


def service(new: Object, old: Object | None) -> list[str]:
    """Ports."""
    spec = new["spec"]
    found = []
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        found.append("spec.ports: Required value")
    for index, port in enumerate(spec.get("ports") or []):
        if not 0 < port["port"] < 65536:
            found.append(
                f"spec.ports[{index}].port: Invalid value: {port['port']}: must be between 1 and 65535, inclusive"
            )
        if len(spec["ports"]) > 1 and not port.get("name"):
            found.append(f"spec.ports[{index}].name: Required value")
        if port.get("name"):
            found += [
                f'spec.ports[{index}].name: Invalid value: "{port["name"]}": {why}' for why in label_rules(port["name"])
            ]
    return found


def node(new: Object, old: Object | None) -> list[str]:
    """Taints."""
    found: list[str] = []
    for index, taint in enumerate((new.get("spec") or {}).get("taints") or []):
        found += [
            f'metadata.taints[{index}].key: Invalid value: "{taint["key"]}": {why}'
            for why in qualified_name_rules(taint["key"])
        ]
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            found.append(f'metadata.taints[{index}].effect: Unsupported value: "{taint.get("effect", "")}"')
    return found


def _keys(data: Object, path: str) -> list[str]:
    found = []
    for key in data:
        if len(key) > 253:
            found.append(f'{path}[{key}]: Invalid value: "{key}": must be no more than 253 characters')
        if not _KEY.match(key) or key in (".", ".."):
            found.append(f'{path}[{key}]: Invalid value: "{key}": {_KEY_RULE}')
    return found


def _decoded_bytes(data: dict[str, str], path: str, found: list[str]) -> int:
    size = 0
    for key, value in data.items():
        try:
            size += len(base64.b64decode(value, validate=True))
        except binascii.Error as error:
            found.append(f"{path}[{key}]: Invalid value: illegal base64 data: {error}")
    return size


def _immutable(new: Object, old: Object | None, parts: tuple[str, ...]) -> list[str]:
    if old is None or not old.get("immutable"):
        return []
    found = [
        f"{part}: Forbidden: field is immutable when `immutable` is set"
        for part in parts
        if new.get(part) != old.get(part)
    ]
    if not new.get("immutable"):
        found.append("immutable: Forbidden: field is immutable when `immutable` is set")
    return found
