"""Custom resource definitions: what they must say, and the resources that they make."""

import re
from typing import Any

from tests.cluster.api import expressions
from tests.cluster.api.clock import now
from tests.cluster.api.kinds import Kind, Object

_STEP = re.compile(
    r"""\[\?\(@\.(\w+)==["'](.*?)["']\)\]"""  # the first of a list with this value
    r"|\['(.*?)'\]|\[(\d+)\]|\.?((?:\\.|[^.\[\\])+)"
)
_REFUSED = (
    "$ref",
    "$id",
    "deprecated",
    "discriminator",
    "readOnly",
    "writeOnly",
    "xml",
    "definitions",
    "dependencies",
    "patternProperties",
)


def established(definition: Object) -> Object:
    """The definition with the names that were accepted, as its status says them."""
    names = dict(definition["spec"]["names"])
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    conditions = [
        {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"},
        {
            "type": "Established",
            "status": "True",
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]
    kept = {one["type"]: one for one in (definition.get("status") or {}).get("conditions") or []}
    conditions = [kept.get(one["type"]) or {**one, "lastTransitionTime": now()} for one in conditions]
    stored = [version["name"] for version in definition["spec"]["versions"] if version["storage"]]
    status = {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}
    spec = {"conversion": {"strategy": "None"}, **definition["spec"], "names": names}
    return {**definition, "spec": spec, "status": status}


def kinds_of(definition: Object) -> list[Kind]:
    """The resources, one for each version that is served."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            name=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            status="status" in (version.get("subresources") or {}),
            schema=version["schema"]["openAPIV3Schema"],
            columns=tuple(version.get("additionalPrinterColumns") or ()),
            scale=(version.get("subresources") or {}).get("scale"),
        )
        for version in spec["versions"]
        if version["served"]
    ]


def mistakes(definition: Object) -> list[str]:
    """What the real server would refuse in the definition."""
    spec = definition["spec"]
    found = []
    if definition["metadata"]["name"] != f"{spec['names']['plural']}.{spec['group']}":
        wrong = definition["metadata"]["name"]
        found.append(f'metadata.name: Invalid value: "{wrong}": must be spec.names.plural+"."+spec.group')
    if sum(version["storage"] for version in spec["versions"]) != 1:
        found.append("spec.versions: Invalid value: []: must have exactly one version marked as storage version")
    for index, version in enumerate(spec["versions"]):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.append(f"{path}: Required value: schemas are required")
        else:
            found += _of_schema(schema, path, root=True)
        for at, column in enumerate(version.get("additionalPrinterColumns") or []):
            if not column["jsonPath"].startswith("."):
                where = f"spec.versions[{index}].additionalPrinterColumns[{at}].jsonPath"
                found.append(f"{where}: Invalid value: must be a simple json path starting with .")
    return found


def _of_schema(schema: Object, path: str, root: bool = False) -> list[str]:
    found = [f"{path}.{word}: Forbidden: {word} is forbidden" for word in _REFUSED if word in schema]
    found += expressions.cannot_be_read(schema, path)
    if root and schema.get("type") != "object":
        found.append(f'{path}.type: Invalid value: "{schema.get("type", "")}": must be object at the root')
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not free:
        found.append(f"{path}.type: Required value: must not be empty for specified object fields")
    if schema.get("type") == "array" and not schema.get("items"):
        found.append(f"{path}.items: Required value: must be specified")
    if "properties" in schema and schema.get("additionalProperties"):
        found.append(
            f"{path}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
        )
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        found.append(f"{path}.uniqueItems: Forbidden: {why}")
    if schema.get("x-kubernetes-list-type") == "map":
        items = schema.get("items") or {}
        for key in schema.get("x-kubernetes-list-map-keys") or []:
            described = (items.get("properties") or {}).get(key) or {}
            if key not in (items.get("required") or []) and "default" not in described:
                why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be required"
                found.append(f"{path}.items.properties[{key}].default: Required value: {why}")
    for name, part in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            found += _of_schema(part, f"{path}.properties[{name}]")
    if isinstance(more := schema.get("additionalProperties"), dict):
        found += _of_schema(more, f"{path}.additionalProperties")
    if isinstance(items := schema.get("items"), dict):
        found += _of_schema(items, f"{path}.items")
    return found


def column_value(thing: Any, path: str) -> Any:
    """What a simple JSON path leads to; None for nothing."""
    for field, value, quoted, index, name in _STEP.findall(path):
        if field:
            thing = next((one for one in thing or () if one.get(field) == value), None)
        elif index:
            thing = thing[int(index)] if isinstance(thing, list) and int(index) < len(thing) else None
        else:
            thing = thing.get(quoted or name.replace("\\.", ".")) if isinstance(thing, dict) else None
    return thing
