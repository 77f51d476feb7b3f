"""Built-in resources have Go types: what they do not know is dropped, and a wrong type is refused before all else.

The types come from the published schemas of Kubernetes that `kubernetes-validate` carries.
"""

import functools
import json
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.cluster.api.kinds import Kind, Object

_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local" / "_definitions.json"
_PREFIX = "#/$defs/"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_FREE = ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",)
_PYTHON = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
_GO = {"string": "string", "integer": "int32", "number": "float64", "boolean": "bool", "array": "[]", "object": "map"}


@functools.cache
def _definitions() -> dict[str, Object]:
    return dict(json.loads(_SCHEMAS.read_text())["$defs"])


@functools.cache
def _of_kind(group: str, version: str, name: str) -> str:
    for path, definition in _definitions().items():
        names = definition.get("x-kubernetes-group-version-kind") or ()
        if any((one["group"], one["version"], one["kind"]) == (group, version, name) for one in names):
            return path
    domain = group.partition(".")[0] or "core"
    return next(path for path in _definitions() if path.endswith(f".{domain}.{version}.{name}"))


class Decoded:
    """An object as a Go program would read it."""

    def __init__(self, kind: Kind, thing: Object) -> None:
        self.unknown: list[str] = []
        """Fields that no type has."""
        self.wrong: list[str] = []
        """Values of another type than the field's."""
        self.missing: list[str] = []
        """Fields that must be there."""
        self.value: Object = self._read(thing, {"$ref": _PREFIX + _of_kind(kind.group, kind.version, kind.name)}, "")

    def _read(self, value: Any, schema: Object, path: str) -> Any:
        name = schema.get("$ref", "").removeprefix(_PREFIX)
        if name == _QUANTITY:
            return self._checked(str(value) if _number(value) else value, "string", path)
        if name in _FREE:
            return value
        if name:
            schema = _definitions()[name]
        if "oneOf" in schema:
            return value if isinstance(value, str | int) else self._checked(value, "integer", path)
        types = schema.get("type") or []
        kind = types if isinstance(types, str) else next((one for one in types if one != "null"), "")
        self._checked(value, kind, path)
        if isinstance(value, dict) and kind == "object":
            return self._object(value, schema, path)
        if isinstance(value, list) and kind == "array":
            return [self._read(entry, schema["items"], f"{path}[{index}]") for index, entry in enumerate(value)]
        return value

    def _object(self, value: Object, schema: Object, path: str) -> Object:
        properties, more = schema.get("properties"), schema.get("additionalProperties")
        if properties is None and not isinstance(more, dict):
            return value
        read: Object = {}
        for name, part in value.items():
            here = f"{path}.{name}" if path else name
            described = (properties or {}).get(name) or (more if isinstance(more, dict) else None)
            if described is None:
                self.unknown.append(here)
            elif part is not None:
                read[name] = self._read(part, described, here)
        self.missing += [
            f"{path}.{name}" if path else name for name in schema.get("required") or [] if name not in read
        ]
        return read

    def _checked(self, value: Any, kind: str, path: str) -> Any:
        wanted = _PYTHON.get(kind, object)
        if value is None or (isinstance(value, wanted) and not (isinstance(value, bool) and kind != "boolean")):  # type: ignore[arg-type]  # a tuple too
            return value
        name = next((name for name, one in _PYTHON.items() if isinstance(value, one)), "null")  # type: ignore[arg-type]
        self.wrong.append(f"json: cannot unmarshal {name} into Go struct field {path} of type {_GO.get(kind, kind)}")
        return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
