"""Addresses: what a request is about."""

from dataclasses import dataclass

import aiohttp.web
import yaml

from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind, Kinds, Object
from tests.cluster.api.patching import parsed


@dataclass(frozen=True, slots=True)
class Target:
    """A resource, or one object of it, or a subresource of that."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def target(kinds: Kinds, path: str) -> Target | None:
    """What the path leads to; None for no resource."""
    match path.strip("/").split("/"):
        case ["api", "v1", *rest]:
            group, version = "", "v1"
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3 or (kind := kinds.find(group, version, rest[0])) is None:
        return None
    if namespace and not kind.namespaced:
        return None
    return Target(kind, namespace, *rest[1:])


async def body_of(request: aiohttp.web.Request) -> Object:
    """The request's object. Raises `ApiError` 400 or 415."""
    content = await request.read()
    if not content:
        return {}
    match request.content_type:
        case "application/yaml" | "application/apply-patch+yaml":
            try:
                found = yaml.safe_load(content)
            except yaml.YAMLError as error:
                raise ApiError(400, f"error decoding YAML: {error}") from error
        case "application/vnd.kubernetes.protobuf":
            raise ApiError(415, "this server speaks JSON")
        case _:
            found = parsed(content)
    if not isinstance(found, dict):
        raise ApiError(400, "the body is no object")
    return found
