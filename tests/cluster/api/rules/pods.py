"""What makes a pod, or a template of pods."""

from collections.abc import Callable

from tests.cluster.api.kinds import Object
from tests.cluster.api.rules import containers, metadata

_MUTABLE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def mistakes(new: Object, old: Object | None) -> list[str]:
    """What a real server refuses in a pod."""
    found = of_spec(new["spec"], "spec")
    if old is not None and _fixed(new["spec"]) != _fixed(old["spec"]):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        found.append(f"spec: Forbidden: {why}")
    return found


def of_template(template: Object, path: str) -> list[str]:
    """Of a template, which has labels and annotations too."""
    about = template.get("metadata") or {}
    found = metadata.labels(about.get("labels") or {}, f"{path}.metadata.labels")
    found += metadata.annotations(about.get("annotations") or {}, f"{path}.metadata.annotations")
    return found + of_spec(template.get("spec") or {}, f"{path}.spec")


def of_spec(spec: Object, path: str) -> list[str]:
    """Of the part that both have."""
    volumes = {volume.get("name", "") for volume in spec.get("volumes") or []}
    found = _volumes(spec.get("volumes") or [], f"{path}.volumes")
    if not spec.get("containers"):
        found.append(f"{path}.containers: Required value")
    names: set[str] = set()
    for index, container in enumerate(spec.get("containers") or []):
        where = f"{path}.containers[{index}]"
        found += containers.mistakes(container, volumes, where) + containers.probes(container, where)
        found += _unique(container["name"], names, where)
    for index, container in enumerate(spec.get("initContainers") or []):
        where = f"{path}.initContainers[{index}]"
        found += containers.mistakes(container, volumes, where) + _initial(container, where)
        found += _unique(container["name"], names, where)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        supported = '"Always", "OnFailure", "Never"'
        found.append(
            f'{path}.restartPolicy: Unsupported value: "{spec.get("restartPolicy")}": supported values: {supported}'
        )
    if (deadline := spec.get("activeDeadlineSeconds", 1)) < 1:
        found.append(
            f"{path}.activeDeadlineSeconds: Invalid value: {deadline}: must be between 1 and 2147483647, inclusive"
        )
    rules: list[tuple[str, Callable[[str], list[str]]]] = [
        ("hostname", metadata.label_rules),
        ("subdomain", metadata.label_rules),
        ("serviceAccountName", metadata.subdomain_rules),
        ("priorityClassName", metadata.subdomain_rules),
        ("nodeName", metadata.subdomain_rules),
    ]
    found += [
        f'{path}.{name}: Invalid value: "{spec[name]}": {why}'
        for name, rule in rules
        if spec.get(name)
        for why in rule(spec[name])
    ]
    found += metadata.labels(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    found += [
        f"{path}.imagePullSecrets[{index}].name: Required value"
        for index, one in enumerate(spec.get("imagePullSecrets") or [])
        if not one.get("name")
    ]
    return found + _tolerations(spec.get("tolerations") or [], f"{path}.tolerations") + _affinity(spec, path)


def _initial(container: Object, path: str) -> list[str]:
    """A sidecar may have probes, a plain init container may not."""
    policy = container.get("restartPolicy")
    if policy == "Always":
        return containers.probes(container, path)
    names = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    return [
        f"{path}.{name}: Forbidden: may not be set for init containers without restartPolicy=Always"
        for name in names
        if name in container
    ]


def _unique(name: str, names: set[str], path: str) -> list[str]:
    if name in names:
        return [f'{path}.name: Duplicate value: "{name}"']
    names.add(name)
    return []


def _volumes(volumes: list[Object], path: str) -> list[str]:
    found: list[str] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name", "")
        found += [f'{where}.name: Invalid value: "{name}": {why}' for why in metadata.label_rules(name)]
        found += _unique(name, names, where) if name else []
        sources = [source for source in volume if source != "name"]
        if not sources:
            found.append(f"{where}: Required value: must specify a volume type")
        found += [f"{where}.{source}: Forbidden: may not specify more than 1 volume type" for source in sources[1:]]
        if not volume.get("configMap", {"name": "x"}).get("name"):
            found.append(f"{where}.configMap.name: Required value")
        if not volume.get("secret", {"secretName": "x"}).get("secretName"):
            found.append(f"{where}.secret.secretName: Required value")
        for source in ("configMap", "secret"):
            for at, item in enumerate((volume.get(source) or {}).get("items") or []):
                if item["path"].startswith("/") or ".." in item["path"].split("/"):
                    found.append(
                        f'{where}.{source}.items[{at}].path: Invalid value: "{item["path"]}": must be a relative path'
                    )
    return found


def _tolerations(tolerations: list[Object], path: str) -> list[str]:
    found: list[str] = []
    for index, one in enumerate(tolerations):
        where, operator = f"{path}[{index}]", one.get("operator", "Equal")
        if key := one.get("key"):
            found += [f'{where}.key: Invalid value: "{key}": {why}' for why in metadata.qualified_name_rules(key)]
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            found.append(f'{where}.operator: Invalid value: "{one.get("operator", "")}": {why}')
        if "tolerationSeconds" in one and one.get("effect") != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(f'{where}.effect: Invalid value: "{one.get("effect", "")}": {why}')
        if operator not in ("Equal", "Exists"):
            found.append(f'{where}.operator: Unsupported value: "{operator}": supported values: "Equal", "Exists"')
        if operator == "Exists" and one.get("value"):
            found.append(
                f"{where}.operator: Invalid value: \"{one['value']}\": value must be empty when `operator` is 'Exists'"
            )
        if one.get("effect") and one["effect"] not in _EFFECTS:
            supported = ", ".join(f'"{effect}"' for effect in _EFFECTS)
            found.append(f'{where}.effect: Unsupported value: "{one["effect"]}": supported values: {supported}')
    return found


def _affinity(spec: Object, path: str) -> list[str]:
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    where = f"{path}.affinity.nodeAffinity"
    found: list[str] = []
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    if required in node and not node[required].get("nodeSelectorTerms"):
        found.append(f"{where}.{required}.nodeSelectorTerms: Required value: must have at least one node selector term")
    for index, term in enumerate((node.get(required) or {}).get("nodeSelectorTerms") or []):
        found += _term(term, f"{where}.{required}.nodeSelectorTerms[{index}]")
    for index, one in enumerate(node.get(preferred) or []):
        at = f"{where}.{preferred}[{index}]"
        if not 0 < one.get("weight", 0) <= 100:
            found.append(f"{at}.weight: Invalid value: {one.get('weight', 0)}: must be in the range 1-100")
        found += _term(one.get("preference") or {}, f"{at}.preference")
    return found


def _term(term: Object, path: str) -> list[str]:
    found: list[str] = []
    for index, one in enumerate(term.get("matchExpressions") or []):
        where, values = f"{path}.matchExpressions[{index}]", one.get("values") or []
        operator = one.get("operator", "")
        if operator not in _OPERATORS:
            found.append(f'{where}.operator: Invalid value: "{operator}": not a valid selector operator')
        if operator in ("In", "NotIn") and not values:
            found.append(f"{where}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'")
        if operator in ("Exists", "DoesNotExist") and values:
            found.append(
                f"{where}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
        if operator in ("Gt", "Lt") and len(values) != 1:
            found.append(
                f"{where}.values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"
            )
        found += [
            f'{where}.key: Invalid value: "{one.get("key", "")}": {why}'
            for why in metadata.qualified_name_rules(one.get("key", ""))
        ]
        found += [
            f'{where}.values: Invalid value: "{value}": {why}'
            for value in values
            for why in metadata.label_value_rules(value)
        ]
    return found


def _fixed(spec: Object) -> Object:
    kept = {name: part for name, part in spec.items() if name not in _MUTABLE}
    for name in ("containers", "initContainers"):
        kept[name] = [{key: value for key, value in one.items() if key != "image"} for one in spec.get(name) or []]
    return kept
