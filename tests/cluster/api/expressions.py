"""`x-kubernetes-validations` of custom resources: rules in CEL about a value, or about how it may change."""

import functools
import re
from typing import Any

from cel_expr_python import cel

from tests.cluster.api.kinds import Object

_OLD = re.compile(r"\boldSelf\b")


@functools.cache
def _environment() -> Any:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


@functools.cache
def _compiled(rule: str) -> Any:
    return _environment().compile(rule)


def mistakes(new: Any, old: Any, schema: Object, path: str = "") -> list[str]:
    """The rules that do not hold. Rules about a change count only where there was a value before."""
    found = [
        sentence for rule in schema.get("x-kubernetes-validations") or [] if (sentence := _broken(rule, new, old, path))
    ]
    if isinstance(new, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, value in new.items():
            part = properties.get(name) or (more if isinstance(more, dict) else None)
            if part is not None:
                before = old.get(name) if isinstance(old, dict) else None
                found += mistakes(value, before, part, f"{path}.{name}" if path else name)
    elif isinstance(new, list):
        for index, value in enumerate(new):
            found += mistakes(value, None, schema.get("items") or {}, f"{path}[{index}]")
    return found


def cannot_be_read(schema: Object, path: str) -> list[str]:
    """Rules that are no CEL."""
    found = []
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        try:
            _compiled(rule["rule"])
        except Exception as error:  # the library names no type of its own
            found.append(f"{path}.x-kubernetes-validations[{index}].rule: Invalid value: compilation failed: {error}")
    return found


def _broken(rule: Object, new: Any, old: Any, path: str) -> str:
    if old is None and _OLD.search(rule["rule"]):
        return ""
    try:
        result = _compiled(rule["rule"]).eval(data={"self": new, "oldSelf": old}).value()
        why = rule.get("message") or f"failed rule: {rule['rule'].strip()}"
    except Exception as error:  # see above
        result, why = False, f"rule: {rule['rule'].strip()}: {error}"
    return "" if result is True else f"{path or '<nil>'}: Invalid value: {why}"
