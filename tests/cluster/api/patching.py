"""Three of the four kinds of patches: JSON patch, merge patch and strategic merge patch."""

import copy
import json
from typing import Any

from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Object
from tests.cluster.api.lists import SET, Keys, Listing, entry_key

_REJECTED = "the server rejected our request due to an error in our request"


def json_patch(thing: Object, operations: list[Object]) -> Object:
    """RFC 6902. Raises `ApiError` 422 when an operation does not apply; a failed `test` is one."""
    document: Any = copy.deepcopy(thing)
    for operation in operations:
        try:
            document = _operated(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"{_REJECTED}: {operation.get('op')} operation does not apply: doc is missing path"
            message += f": {operation.get('path')}: {error}"
            raise ApiError(422, message, "Invalid") from error
    return dict(document)


def _operated(document: Any, operation: Object) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "test":
            if _at(document, path) != operation.get("value"):
                raise ApiError(422, f"{_REJECTED}: testing path {operation['path']} failed", "Invalid")
        case "add":
            return _added(document, path, copy.deepcopy(operation["value"]))
        case "replace":
            _at(document, path)
            return (
                _added(_removed(document, path), path, copy.deepcopy(operation["value"]))
                if path
                else operation["value"]
            )
        case "remove":
            return _removed(document, path)
        case "copy":
            return _added(document, path, copy.deepcopy(_at(document, _pointer(operation["from"]))))
        case "move":
            source = _pointer(operation["from"])
            value = _at(document, source)
            return _added(_removed(document, source), path, value)
        case other:
            raise ValueError(f"unexpected kind: {other}")
    return document


def _pointer(text: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _at(document: Any, path: list[str]) -> Any:
    for step in path:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _added(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value
    return document


def _removed(document: Any, path: list[str]) -> Any:
    parent = _at(document, path[:-1])
    del parent[int(path[-1]) if isinstance(parent, list) else path[-1]]
    return document


def merge_patch(there: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(there) if isinstance(there, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def strategic_merge(there: Any, patch: Any, listing: Listing, path: tuple[str, ...] = ()) -> Any:
    """As `kubectl` sends it: like a merge patch, and lists with keys are merged by them."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    merged = dict(there) if isinstance(there, dict) else {}
    for name, value in patch.items():
        if name.startswith(("$setElementOrder/", "$retainKeys", "$patch")):
            continue
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [entry for entry in merged.get(field) or [] if entry not in value]
        elif value is None:
            merged.pop(name, None)
        elif isinstance(value, list) and (keys := listing((*path, name))) is not None:
            merged[name] = _merged_list(merged.get(name) or [], value, keys, listing, (*path, name))
        elif isinstance(value, dict):
            merged[name] = strategic_merge(merged.get(name), value, listing, (*path, name))
        else:
            merged[name] = copy.deepcopy(value)
    if retained := patch.get("$retainKeys"):
        merged = {name: value for name, value in merged.items() if name in retained}
    return merged


def _merged_list(there: list[Any], patch: list[Any], keys: Keys, listing: Listing, path: tuple[str, ...]) -> list[Any]:
    if keys == SET:
        return there + [entry for entry in patch if entry not in there]
    keys = keys[:1]  # a strategic merge knows one key where server-side apply knows two
    if any(entry.get("$patch") == "replace" for entry in patch):
        return [entry for entry in patch if "$patch" not in entry]
    merged = {entry_key(entry, keys): entry for entry in there}
    for entry in patch:
        key = entry_key(entry, keys)
        if entry.get("$patch") == "delete":
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge(merged.get(key), entry, listing, path)
    return list(merged.values())


def parsed(body: bytes) -> Any:
    """JSON from a request. Raises `ApiError` 400."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"error decoding patch: {error}") from error
