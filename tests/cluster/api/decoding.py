"""What a request's body means to the server: unknown fields go, wrong types are refused."""

import copy

from tests.cluster.api import schema
from tests.cluster.api.errors import ApiError, invalid
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.typed import Decoded


def decoded(kind: Kind, given: Object, validation: str, warnings: list[str], complete: bool = True) -> Object:
    """A copy of the object, without what nobody knows: with `validation` Strict that is refused, with Warn told.

    Raises `ApiError` 400, and 422 for what is missing of a `complete` object.
    """
    if not isinstance(given, dict):
        raise ApiError(400, f"the body is no {kind.name}")
    said = given.get("apiVersion") or kind.api_version, given.get("kind") or kind.name
    if said != (kind.api_version, kind.name):
        raise ApiError(400, f"the object provided is unrecognized: {said} instead of {(kind.api_version, kind.name)}")
    given = copy.deepcopy({**given, "apiVersion": kind.api_version, "kind": kind.name})
    given["metadata"] = given.get("metadata") or {}
    if kind.custom:
        unknown, thing = schema.unknown_fields(given, kind.schema or {}), schema.pruned(given, kind.schema or {})
    else:
        unknown, thing = _typed(kind, given, complete)
    sentences = [f'unknown field "{path}"' for path in unknown]
    if sentences and validation == "Strict":
        raise ApiError(400, f"{_unreadable(kind)}: strict decoding error: {', '.join(sentences)}")
    if validation == "Warn":
        warnings.extend(sentences)
    thing.setdefault("metadata", {})
    return dict(thing)


def _typed(kind: Kind, given: Object, complete: bool) -> tuple[list[str], Object]:
    read = Decoded(kind, given)
    if read.wrong:
        raise ApiError(400, f"{_unreadable(kind)}: {read.wrong[0]}")
    missing = [path for path in read.missing if not path.startswith("status") and path != "metadata"]
    if missing and complete:
        name = given["metadata"].get("name", "")
        raise invalid(kind.name, kind.group, name, [f"{path}: Required value" for path in missing])
    return read.unknown, read.value


def _unreadable(kind: Kind) -> str:
    return f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}'
