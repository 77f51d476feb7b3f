"""Who owns which fields: sets of paths, and their form in `metadata.managedFields`.

A path's steps are `f:name` for a field, `k:{...}` and `v:...` for an entry of a list with keys; a path ends with `.`
when it means that the entry exists, and at the field itself when that has no owned parts (`fieldsV1`).
"""

from typing import Any

from tests.cluster.api.kinds import Object
from tests.cluster.api.lists import WHOLE, Listing, entry_key

Path = tuple[str, ...]
_UNOWNED = {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
_UNOWNED_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def fields_of(thing: Object, listing: Listing) -> dict[Path, Any]:
    """Every leaf of an object with its value, without what nobody owns."""
    owned = {name: value for name, value in thing.items() if name not in ("apiVersion", "kind")}
    metadata = {name: value for name, value in (thing.get("metadata") or {}).items() if name not in _UNOWNED_METADATA}
    found: dict[Path, Any] = {}
    _collect({**owned, "metadata": metadata}, (), (), listing, found)
    return {path: value for path, value in found.items() if path not in _UNOWNED}


def _collect(value: Any, path: Path, names: tuple[str, ...], listing: Listing, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and not (names and listing(names) == WHOLE):
        for name, part in value.items():
            _collect(part, (*path, f"f:{name}"), (*names, name), listing, found)
        return
    keys = listing(names) if isinstance(value, list) and names else None
    if keys is None or not value:
        found[path] = value
        return
    for entry in value:
        key = (*path, entry_key(entry, keys))
        if isinstance(entry, dict):
            found[(*key, ".")] = None
            _collect(entry, key, names, listing, found)
        else:
            found[key] = entry


def to_fields_v1(paths: set[Path]) -> Object:
    """The nested form."""
    tree: Object = {}
    for path in sorted(paths):
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
    return tree


def from_fields_v1(tree: Object) -> set[Path]:
    """The set of paths."""
    found: set[Path] = set()

    def walk(branch: Object, path: Path) -> None:
        if not branch and path:
            found.add(path)
        for step, rest in branch.items():
            walk(rest, (*path, step))

    walk(tree, ())
    return found


def removed(thing: Any, path: Path, listing: Listing, names: tuple[str, ...] = ()) -> Any:
    """The object without that leaf or list entry; what is empty afterwards goes too."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        name = step[2:]
        if not isinstance(thing, dict) or name not in thing:
            return thing
        part = removed(thing[name], rest, listing, (*names, name)) if rest else None
        others = {key: value for key, value in thing.items() if key != name}
        return others if part in (None, {}, []) else {**thing, name: part}
    keys = listing(names)
    if not isinstance(thing, list) or keys is None:
        return thing
    if rest in ((), (".",)):
        return [entry for entry in thing if entry_key(entry, keys) != step]
    return [removed(entry, rest, listing, names) if entry_key(entry, keys) == step else entry for entry in thing]
