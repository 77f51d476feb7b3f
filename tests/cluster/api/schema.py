"""Structural schemas of custom resources: validation, pruning and defaults, with the real server's sentences."""

import copy
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.cluster.api.kinds import Object

_EMBEDDED = ("apiVersion", "kind", "metadata")
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def mistakes(value: Any, schema: Object, path: str = "") -> list[str]:
    """What breaks the schema, a sentence each."""
    if schema.get("x-kubernetes-int-or-string"):
        ok = isinstance(value, str) or _TYPES["integer"](value)
        return [] if ok else [_wrong_type(path, value, "integer,string")]
    if value is None:
        return [] if schema.get("nullable") or "type" not in schema else [_wrong_type(path, value, schema["type"])]
    if (kind := schema.get("type")) and not _TYPES[kind](value):
        return [_wrong_type(path, value, kind)]
    found = _of_scalars(value, schema, path)
    if isinstance(value, dict):
        found += _of_object(value, schema, path)
    elif isinstance(value, list):
        found += _of_list(value, schema, path)
    return found + _of_combinations(value, schema, path)


def pruned(value: Any, schema: Object, root: bool = True) -> Any:
    """Without the fields that the schema does not know."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [pruned(entry, items, schema.get("x-kubernetes-embedded-resource", False)) for entry in value]
    if not isinstance(value, dict):
        return value
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields", False)
    kept = {}
    for name, part in value.items():
        if root and name in _EMBEDDED:
            kept[name] = part
        elif name in properties:
            kept[name] = pruned(part, properties[name], properties[name].get("x-kubernetes-embedded-resource", False))
        elif more:
            kept[name] = pruned(part, more, False) if isinstance(more, dict) else part
        elif keeps:
            kept[name] = part
    return kept


def unknown_fields(value: Any, schema: Object, path: str = "") -> list[str]:
    """What pruning would remove, as paths."""
    keeping = pruned(value, schema)
    found: list[str] = []

    def compare(full: Any, kept: Any, where: str) -> None:
        if isinstance(full, dict):
            for name, part in full.items():
                here = f"{where}.{name}" if where else name
                if name in kept:
                    compare(part, kept[name], here)
                else:
                    found.append(here)
        elif isinstance(full, list):
            for index, (part, other) in enumerate(zip(full, kept, strict=True)):
                compare(part, other, f"{where}[{index}]")

    compare(value, keeping, path)
    return found


def defaulted(value: Any, schema: Object) -> Any:
    """With the schema's defaults where nothing is said."""
    if isinstance(value, list):
        return [defaulted(entry, schema.get("items") or {}) for entry in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, part in (schema.get("properties") or {}).items():
        missing = name not in filled or (filled[name] is None and not part.get("nullable"))
        if missing and "default" in part:
            filled[name] = copy.deepcopy(part["default"])
        elif missing and name in filled:
            continue
        if name in filled:
            filled[name] = defaulted(filled[name], part)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        known = schema.get("properties") or {}
        filled |= {name: defaulted(part, more) for name, part in filled.items() if name not in known}
    return filled


def _of_scalars(value: Any, schema: Object, path: str) -> list[str]:
    found = []
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(_json(one) for one in schema["enum"])
        found.append(f"{path}: Unsupported value: {_json(value)}: supported values: {supported}")
    if isinstance(value, str):
        found += _of_string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += [_breaks(path, value, rule) for rule in _number_rules(value, schema)]
    return found


def _of_string(value: str, schema: Object, path: str) -> list[str]:
    found = []
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(_breaks(path, value, f"should match '{schema['pattern']}'"))
    if len(value) > schema.get("maxLength", len(value)):
        found.append(f"{path}: Too long: may not be more than {schema['maxLength']} bytes")
    if len(value) < schema.get("minLength", 0):
        found.append(_breaks(path, value, f"should be at least {schema['minLength']} chars long"))
    if schema.get("format") == "date-time" and not _is_time(value):
        found.append(_breaks(path, value, f"must be of type date-time: {_json(value)}"))
    return found


def _number_rules(value: float, schema: Object) -> list[str]:
    """The rules that a number breaks."""
    found = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        than = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        found.append(f"should be {than} {low}")
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        than = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        found.append(f"should be {than} {high}")
    if (step := schema.get("multipleOf")) and value % step:
        found.append(f"should be a multiple of {step}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        found.append(f"must be of type {schema['format']}: {_json(value)}")
    return found


def _of_object(value: Object, schema: Object, path: str) -> list[str]:
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    found = [f"{_join(path, name)}: Required value" for name in schema.get("required") or [] if name not in value]
    if len(value) > schema.get("maxProperties", len(value)):
        found.append(f"{path}: Too many: {len(value)}: must have at most {schema['maxProperties']} items")
    if len(value) < schema.get("minProperties", 0):
        found.append(_breaks(path, len(value), f"should have at least {schema['minProperties']} properties"))
    for name, part in value.items():
        if name in properties:
            found += mistakes(part, properties[name], _join(path, name))
        elif isinstance(more, dict):
            found += mistakes(part, more, _join(path, name))
    return found


def _of_list(value: list[Any], schema: Object, path: str) -> list[str]:
    found = []
    if len(value) > schema.get("maxItems", len(value)):
        found.append(f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items")
    if len(value) < schema.get("minItems", 0):
        found.append(_breaks(path, len(value), f"should have at least {schema['minItems']} items"))
    for index, entry in enumerate(value):
        found += mistakes(entry, schema.get("items") or {}, f"{path}[{index}]")
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") in ("map", "set"):
        seen = []
        for index, entry in enumerate(value):
            key = {name: entry.get(name) for name in keys} if keys and isinstance(entry, dict) else entry
            if key in seen:
                found.append(f"{path}[{index}]: Duplicate value: {_json(key)}")
            seen.append(key)
    return found


def _of_combinations(value: Any, schema: Object, path: str) -> list[str]:
    found = [sentence for part in schema.get("allOf") or [] for sentence in mistakes(value, part, path)]
    where = path or "<nil>"
    if (options := schema.get("anyOf")) and all(mistakes(value, part, path) for part in options):
        found.append(_breaks(where, "", "must validate at least one schema (anyOf)"))
    if (options := schema.get("oneOf")) and sum(not mistakes(value, part, path) for part in options) != 1:
        found.append(_breaks(where, "", "must validate one and only one schema (oneOf)"))
    if (refused := schema.get("not")) and not mistakes(value, refused, path):
        found.append(_breaks(where, "", "must not validate the schema (not)"))
    return found


def _breaks(path: str, value: Any, rule: str) -> str:
    return f"{path}: Invalid value: {_json(value)}: {path} in body {rule}"


def _wrong_type(path: str, value: Any, wanted: str) -> str:
    name = next((name for name, test in _TYPES.items() if test(value)), "null")
    return f'{path}: Invalid value: "{name}": {path} in body must be of type {wanted}: "{name}"'


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return "T" in value.upper()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _json(value: Any) -> str:
    return json.dumps(value)
