"""What makes a container, and the resources that it asks for."""

import re
from decimal import Decimal
from typing import Any

from tests.cluster.api.kinds import Object
from tests.cluster.api.rules.metadata import label_rules, qualified_name_rules
from tests.cluster.api.rules.quantities import quantity

_ENV_NAME = re.compile(r"^[^=\x00-\x1f\x7f]+$")
_STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGE = "hugepages-"
_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_SUBSCRIPTED = re.compile(r"^metadata\.(annotations|labels)\['(.+)'\]$")
_PULLS = ("Always", "IfNotPresent", "Never")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBE_SECONDS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def mistakes(container: Object, volumes: set[str], path: str) -> list[str]:
    """What a real server refuses in any container."""
    name = container.get("name", "")
    found = [f'{path}.name: Invalid value: "{name}": {why}' for why in label_rules(name)]
    if not container.get("image"):
        found.append(f"{path}.image: Required value")
    if container.get("imagePullPolicy") not in _PULLS:
        supported = ", ".join(f'"{one}"' for one in _PULLS)
        found.append(
            f'{path}.imagePullPolicy: Unsupported value: "{container.get("imagePullPolicy")}": supported: {supported}'
        )
    found += _ports(container.get("ports") or [], f"{path}.ports")
    found += _environment(container.get("env") or [], f"{path}.env")
    found += _mounts(container.get("volumeMounts") or [], volumes, f"{path}.volumeMounts")
    return found + resources(container.get("resources") or {}, f"{path}.resources")


def probes(container: Object, path: str) -> list[str]:
    """Of a container that may have them."""
    found: list[str] = []
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if not (probe := container.get(kind)):
            continue
        where = f"{path}.{kind}"
        handlers = [name for name in _HANDLERS if name in probe]
        if not handlers:
            found.append(f"{where}: Required value: must specify a handler type")
        found += [f"{where}.{name}: Forbidden: may not specify more than 1 handler type" for name in handlers[1:]]
        found += [
            f"{where}.{name}: Invalid value: {probe[name]}: must be greater than or equal to 0"
            for name in _PROBE_SECONDS
            if probe.get(name, 0) < 0
        ]
        if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            found.append(f"{where}.successThreshold: Invalid value: {probe['successThreshold']}: must be 1")
        if kind == "readinessProbe" and "terminationGracePeriodSeconds" in probe:
            found.append(f"{where}.terminationGracePeriodSeconds: Invalid value: must not be set for readinessProbes")
        for name in ("httpGet", "tcpSocket"):
            port = (probe.get(name) or {}).get("port", 1)
            if isinstance(port, int) and not 0 < port < 65536:
                found.append(f"{where}.{name}.port: Invalid value: {port}: must be between 1 and 65535, inclusive")
    return found


def resources(given: Object, path: str) -> list[str]:
    """Quantities; what can't be overcommitted has requests like its limits; hugepages need something beside them."""
    limits, requests = given.get("limits") or {}, given.get("requests") or {}
    found: list[str] = []
    amounts: dict[str, dict[str, Decimal]] = {"limits": {}, "requests": {}}
    for side, quantities in (("limits", limits), ("requests", requests)):
        for name, text in quantities.items():
            where = f"{path}.{side}.{name}" if "/" not in name else f"{path}.{side}[{name}]"
            found += _resource_name(name, f"{path}.{side}")
            try:
                amounts[side][name] = quantity(text)
            except ValueError as error:
                found.append(f'{where}: Invalid value: "{text}": {error}')
                continue
            found += _amount(name, amounts[side][name], text, where)
    for name, amount in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        if limit is None:
            if not _overcommits(name):
                found.append(f"{path}.limits: Required value: Limit must be set for non overcommitable resources")
        elif amount != limit and not _overcommits(name):
            found.append(
                f'{path}.requests: Invalid value: "{requests[name]}": must be equal to {name} limit of {limits[name]}'
            )
        elif amount > limit:
            found.append(
                f'{path}.requests: Invalid value: "{requests[name]}": must be less than or equal to {name} limit'
                f" of {limits[name]}"
            )
    if any(name.startswith(_HUGE) for name in limits | requests) and not {"cpu", "memory"} & (
        limits.keys() | requests.keys()
    ):
        found.append(f"{path}: Forbidden: HugePages require cpu or memory")
    return found


def _overcommits(name: str) -> bool:
    return name in _STANDARD


def _resource_name(name: str, path: str) -> list[str]:
    found = [f'{path}: Invalid value: "{name}": {why}' for why in qualified_name_rules(name)]
    if "/" not in name and name not in _STANDARD and not name.startswith(_HUGE):
        found.append(f'{path}: Invalid value: "{name}": must be a standard resource for containers')
    if "/" in name and (name.startswith("requests.") or name.partition("/")[0].endswith("kubernetes.io")):
        found.append(f'{path}: Invalid value: "{name}": doesn\'t follow extended resource name standard')
    return found


def _amount(name: str, amount: Decimal, text: str, path: str) -> list[str]:
    if amount < 0:
        return [f'{path}: Invalid value: "{text}": must be greater than or equal to 0']
    if "/" in name and amount % 1:
        return [f'{path}: Invalid value: "{text}": must be an integer']
    if name.startswith(_HUGE) and (size := quantity(name.removeprefix(_HUGE))) and amount % size:
        return [f'{path}: Invalid value: "{text}": {text} is not positive integer multiple of {name}']
    return []


def _ports(ports: list[Object], path: str) -> list[str]:
    found = []
    for index, port in enumerate(ports):
        number = port["containerPort"]
        if not 0 < number < 65536:
            found.append(
                f"{path}[{index}].containerPort: Invalid value: {number}: must be between 1 and 65535, inclusive"
            )
        if len(port.get("name", "")) > 15:
            found.append(f'{path}[{index}].name: Invalid value: "{port["name"]}": must be no more than 15 characters')
    names = [port["name"] for port in ports if port.get("name")]
    return found + [
        f'{path}[{index}].name: Duplicate value: "{name}"' for index, name in enumerate(names) if name in names[:index]
    ]


def _environment(variables: list[Object], path: str) -> list[str]:
    found: list[str] = []
    for index, variable in enumerate(variables):
        where, name = f"{path}[{index}]", variable.get("name", "")
        if not name:
            found.append(f"{where}.name: Required value")
        elif not _ENV_NAME.match(name):
            found.append(
                f'{where}.name: Invalid value: "{name}": a valid environment variable name must consist only of'
                " printable ASCII characters other than '='"
            )
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            found.append(f'{where}.valueFrom: Invalid value: "": may not be specified when `value` is not empty')
        if len(source) != 1:
            found.append(
                f'{where}.valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`,'
                " `configMapKeyRef` or `secretKeyRef`"
            )
        if field := source.get("fieldRef"):
            found += _field(field["fieldPath"], f"{where}.valueFrom.fieldRef.fieldPath")
    return found


def _field(path: str, where: str) -> list[str]:
    if subscripted := _SUBSCRIPTED.match(path):
        return [
            f'{where}: Invalid value: "{subscripted[2]}": {why}' for why in qualified_name_rules(subscripted[2].lower())
        ]
    if path in _FIELDS:
        return []
    return [f'{where}: Invalid value: "{path}": error converting fieldPath: field label not supported: {path}']


def _mounts(mounts: list[Object], volumes: set[str], path: str) -> list[str]:
    found: list[str] = []
    seen: set[Any] = set()
    for index, mount in enumerate(mounts):
        where, at = f"{path}[{index}]", mount.get("mountPath", "")
        if mount.get("name") not in volumes:
            found.append(f'{where}.name: Not found: "{mount.get("name", "")}"')
        if not at:
            found.append(f"{where}.mountPath: Required value")
        if at in seen:
            found.append(f'{where}.mountPath: Invalid value: "{at}": must be unique')
        if ":" in at:
            found.append(f"{where}.mountPath: Invalid value: \"{at}\": must not contain ':'")
        seen.add(at)
        if (part := mount.get("subPath", "")) and (part.startswith("/") or ".." in part.split("/")):
            found.append(
                f"{path}.subPath: Invalid value: \"{part}\": must be a relative path, and must not contain '..'"
            )
    return found
