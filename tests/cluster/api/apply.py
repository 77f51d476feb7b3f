"""Server-side apply: each manager owns the fields that it set, and a field that it sets no more goes away.

Another manager's field with another value is a conflict, unless the caller forces it. Writes of other kinds own what
they change, so that an apply sees them.
"""

from dataclasses import dataclass
from typing import Any

from tests.cluster.api.clock import now
from tests.cluster.api.errors import ApiError
from tests.cluster.api.fields import Path, fields_of, from_fields_v1, removed, to_fields_v1
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.lists import SET, WHOLE, Listing, entry_key, lists_of


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes."""

    manager: str
    operation: str
    """Apply or Update."""
    subresource: str = ""


def applied(kind: Kind, live: Object, configuration: Object, writer: Writer, force: bool) -> Object:
    """The live object with the configuration in it. Raises `ApiError` 409 on conflicts."""
    listing = lists_of(kind)
    wanted, there = fields_of(configuration, listing), fields_of(live, listing)
    owners = _owners(live)
    foreign = {
        (other, path)
        for other, paths in owners.items()
        if other != writer
        for path in paths & wanted.keys()
        if path in there and there[path] != wanted[path]
    }
    if foreign and not force:
        raise _conflict(foreign)
    merged = _merged(live, configuration, listing, ())
    others = {other: paths - {path for by, path in foreign if by == other} for other, paths in owners.items()}
    elsewhere = set().union(*(paths for other, paths in others.items() if other != writer))
    for path in sorted(owners.get(writer, set()) - wanted.keys() - elsewhere):
        if not any(_within(path, kept) for kept in elsewhere):
            merged = removed(merged, path, listing)
    return _with_owners(merged, {**others, writer: set(wanted)}, live)


def tracked(kind: Kind, before: Object | None, after: Object, writer: Writer) -> Object:
    """The object with its owners, after a write that was no apply."""
    listing = lists_of(kind)
    old, new = fields_of(before or {"metadata": {}}, listing), fields_of(after, listing)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = old.keys() - new.keys()
    owners = {other: paths - changed - gone for other, paths in _owners(before or after).items()}
    if changed:
        owners[writer] = owners.get(writer, set()) | changed
    return _with_owners(after, owners, before or after)


def _within(path: Path, kept: Path) -> bool:
    """Whether removing `path`, a list's entry, would take `kept` with it."""
    return path[-1] == "." and kept[: len(path) - 1] == path[:-1]


def _merged(there: Any, wanted: Any, listing: Listing, names: tuple[str, ...]) -> Any:
    if isinstance(wanted, dict) and not (names and listing(names) == WHOLE):
        merged = dict(there) if isinstance(there, dict) else {}
        for name, value in wanted.items():
            merged[name] = _merged(merged.get(name), value, listing, (*names, name))
        return merged
    keys = listing(names) if isinstance(wanted, list) and names else None
    if keys is None or not isinstance(there, list):
        return wanted
    if keys == SET:
        return there + [entry for entry in wanted if entry not in there]
    entries = {entry_key(entry, keys): entry for entry in there}
    for entry in wanted:
        key = entry_key(entry, keys)
        entries[key] = _merged(entries.get(key), entry, listing, names)
    return list(entries.values())


def _owners(thing: Object) -> dict[Writer, set[Path]]:
    entries = thing["metadata"].get("managedFields") or []
    return {
        Writer(entry["manager"], entry["operation"], entry.get("subresource", "")): from_fields_v1(entry["fieldsV1"])
        for entry in entries
    }


def _with_owners(thing: Object, owners: dict[Writer, set[Path]], before: Object) -> Object:
    times = {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry
        for entry in before["metadata"].get("managedFields") or []
    }
    entries = []
    for writer, paths in owners.items():
        if not paths:
            continue
        fields = to_fields_v1(paths)
        known = times.get((writer.manager, writer.operation, writer.subresource))
        entry = {"manager": writer.manager, "operation": writer.operation, "apiVersion": thing["apiVersion"]}
        entry |= {"time": known["time"] if known and known["fieldsV1"] == fields else now()}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
        entries.append(entry | ({"subresource": writer.subresource} if writer.subresource else {}))
    return {**thing, "metadata": {**thing["metadata"], "managedFields": entries}}


def _conflict(foreign: set[tuple[Writer, Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{other.manager}"', "field": _readable(path)}
        for other, path in sorted(foreign, key=lambda one: one[1])
    ]
    several = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    about = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return ApiError(409, f"Apply failed with {several}: {about}", details={"causes": causes})


def _readable(path: Path) -> str:
    return "".join(f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]" for step in path if step != ".")
