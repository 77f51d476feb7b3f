"""Label and field selectors."""

import re
from collections.abc import Callable
from typing import Any

from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind, Object

Match = Callable[[Object], bool]

_SET = re.compile(r"^\s*([^\s!=(),]+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s!=(),]+)\s*(==|=|!=)\s*([^\s!=(),]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s!=(),]+)\s*$")
_FIELDS = {
    "pods": ("spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "status.podIP"),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "reportingComponent",
        "source",
    ),
    "jobs": ("status.successful",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
}


def selector(kind: Kind, labels: str, fields: str) -> Match:
    """True for the objects that both select. Raises `ApiError` 400 for what cannot be read."""
    tests = [_label_test(part) for part in _split(labels)]
    tests += [_field_test(kind, part) for part in fields.split(",") if part.strip()]
    return lambda thing: all(test(thing) for test in tests)


def matches(label_selector: Object | None, labels: dict[str, str]) -> bool:
    """A `LabelSelector` object; None selects nothing, an empty one everything."""
    if label_selector is None:
        return False
    if any(labels.get(key) != value for key, value in (label_selector.get("matchLabels") or {}).items()):
        return False
    return all(expression_holds(one, labels) for one in label_selector.get("matchExpressions") or [])


def expression_holds(expression: Object, labels: dict[str, str]) -> bool:
    """One `matchExpressions` entry of labels or of a node's."""
    key, values = expression["key"], expression.get("values") or []
    there = labels.get(key)
    match expression["operator"]:
        case "In":
            return there in values
        case "NotIn":
            return there not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt":
            return there is not None and int(there) > int(values[0])
        case "Lt":
            return there is not None and int(there) < int(values[0])
    return False


def _split(labels: str) -> list[str]:
    """At commas outside of parentheses."""
    return [part for part in re.split(r",(?![^(]*\))", labels) if part.strip()]


def _label_test(text: str) -> Match:
    if found := _SET.match(text):
        key, word, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
        return lambda thing: (_labels(thing).get(key) in values) == (word == "in")
    if found := _EQUAL.match(text):
        key, word, value = found[1], found[2], found[3]
        return lambda thing: (_labels(thing).get(key) == value) == (word != "!=")
    if found := _EXISTS.match(text):
        absent, key = bool(found[1]), found[2]
        return lambda thing: (key in _labels(thing)) != absent
    raise ApiError(400, f"unable to parse requirement: {text!r}")


def _labels(thing: Object) -> dict[str, str]:
    return thing["metadata"].get("labels") or {}


def _field_test(kind: Kind, text: str) -> Match:
    if not (found := _EQUAL.match(text)):
        raise ApiError(400, f"unable to parse field selector: {text!r}")
    path, word, value = found[1], found[2], found[3]
    known = (
        "metadata.name",
        "metadata.namespace",
        *(() if kind.group and kind.custom else _FIELDS.get(kind.plural, ())),
    )
    if path not in known:
        raise ApiError(400, f"field label not supported: {path}")
    return lambda thing: (_text(_at(thing, path)) == value) == (word != "!=")


def _at(thing: Any, path: str) -> Any:
    for step in path.split("."):
        thing = thing.get(step) if isinstance(thing, dict) else None
    return thing


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
