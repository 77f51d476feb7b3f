"""Names, labels and annotations."""

import re
from typing import Any

from tests.cluster.api.kinds import Kind, Object

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_NAME_PART = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_LABELLED = ("namespaces", "services")
_ANNOTATIONS_BYTES = 256 * 1024

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_PART_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def mistakes(kind: Kind, thing: Object, path: str = "metadata") -> list[str]:
    """What a real server refuses in the metadata."""
    metadata = thing["metadata"]
    found = []
    if not kind.namespaced and metadata.get("namespace"):
        found.append(f"{path}.namespace: Forbidden: not allowed on this type")
    if kind.plural != "customresourcedefinitions" or metadata.get("name"):
        strict = kind.plural in _LABELLED
        found += [
            f'{path}.name: Invalid value: "{metadata["name"]}": {why}'
            for why in (label_rules if strict else subdomain_rules)(metadata["name"])
        ]
    found += labels(metadata.get("labels") or {}, f"{path}.labels")
    found += annotations(metadata.get("annotations") or {}, f"{path}.annotations")
    for index, owner in enumerate(metadata.get("ownerReferences") or []):
        found += [
            f'{path}.ownerReferences[{index}].{name}: Invalid value: "": must not be empty'
            for name in ("apiVersion", "kind", "name", "uid")
            if not owner.get(name)
        ]
    if sum(bool(owner.get("controller")) for owner in metadata.get("ownerReferences") or []) > 1:
        found.append(f"{path}.ownerReferences: Invalid value: Only one reference can have Controller set to true")
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        found += [
            f'{path}.finalizers[{index}]: Invalid value: "{finalizer}": {why}'
            for why in qualified_name_rules(finalizer)
        ]
    return found


def labels(given: dict[str, str], path: str) -> list[str]:
    """Keys and values."""
    found = []
    for key, value in given.items():
        found += [f'{path}: Invalid value: "{key}": {why}' for why in qualified_name_rules(key)]
        found += [f'{path}: Invalid value: "{value}": {why}' for why in label_value_rules(value)]
    return found


def annotations(given: dict[str, str], path: str) -> list[str]:
    """Keys and the size of all."""
    found = [f'{path}: Invalid value: "{key}": {why}' for key in given for why in qualified_name_rules(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in given.items()) > _ANNOTATIONS_BYTES:
        found.append(f"{path}: Too long: may not be more than {_ANNOTATIONS_BYTES} bytes")
    return found


def subdomain_rules(name: str) -> list[str]:
    """RFC 1123 subdomain, up to 253."""
    return _rules(name, 253, _SUBDOMAIN, _SUBDOMAIN_RULE)


def label_rules(name: str) -> list[str]:
    """RFC 1123 label, up to 63."""
    return _rules(name, 63, _LABEL, _LABEL_RULE)


def label_value_rules(value: str) -> list[str]:
    """Empty or a name part."""
    return _rules(value, 63, _NAME_PART, _VALUE_RULE) if value else []


def qualified_name_rules(key: str) -> list[str]:
    """`prefix/name`, the prefix a subdomain."""
    prefix, slash, name = key.rpartition("/")
    found = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [f"prefix part {why}" for why in subdomain_rules(prefix)]
    if not name:
        return [*found, "name part must be non-empty", _PART_RULE]
    return found + [
        why if why.startswith("name part") else f"name part {why}" for why in _rules(name, 63, _NAME_PART, _PART_RULE)
    ]


def changed(name: str, path: str, before: Any, after: Any) -> list[str]:
    """One sentence when an immutable field changed."""
    return [] if before == after else [f"{path}: Invalid value: {_shown(after)}: field is immutable"] if name else []


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _rules(text: str, longest: int, pattern: re.Pattern[str], rule: str) -> list[str]:
    found = []
    if len(text) > longest:
        found.append(f"must be no more than {longest} bytes")
    if not pattern.match(text):
        found.append(rule)
    return found
