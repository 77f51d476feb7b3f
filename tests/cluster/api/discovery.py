"""What the server serves, as `kubectl` asks before anything else."""

from tests.cluster.api.kinds import Kind, Kinds, Object

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.3",
    "gitCommit": "fake",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}


def answer(kinds: Kinds, path: str, server: str) -> Object | None:
    """The document at this address, or None."""
    match path.strip("/").split("/"):
        case ["version"]:
            return VERSION
        case ["api"]:
            addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}
        case ["api", "v1"]:
            return _resources("v1", [kind for kind in kinds if kind.api_version == "v1"])
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(kinds)}
        case ["apis", group]:
            return next(
                (one | {"kind": "APIGroup", "apiVersion": "v1"} for one in _groups(kinds) if one["name"] == group), None
            )
        case ["apis", group, version]:
            found = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
            return _resources(f"{group}/{version}", found) if found else None
        case ["openapi", "v3"]:
            names = {
                kind.api_version: f"apis/{kind.api_version}" if kind.group else f"api/{kind.api_version}"
                for kind in kinds
            }
            return {
                "paths": {
                    path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={abs(hash(path))}"} for path in names.values()
                }
            }
        case ["openapi", "v3", "api" | "apis", *rest]:
            return _openapi([kind for kind in kinds if kind.api_version == "/".join(rest)])
    return None


def _groups(kinds: Kinds) -> list[Object]:
    versions: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.group and kind.version not in versions.setdefault(kind.group, []):
            versions[kind.group].append(kind.version)
    entries = {
        group: [{"groupVersion": f"{group}/{one}", "version": one} for one in found]
        for group, found in versions.items()
    }
    return [{"name": group, "versions": found, "preferredVersion": found[0]} for group, found in entries.items()]


def _resources(api_version: str, kinds: list[Kind]) -> Object:
    resources: list[Object] = []
    for kind in kinds:
        entry: Object = {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": _VERBS,
        }
        entry |= {"shortNames": list(kind.short_names)} if kind.short_names else {}
        entry |= {"categories": list(kind.categories)} if kind.categories else {}
        resources.append(entry)
        if kind.status:
            resources.append(_sub(kind, "status", kind.name, ["get", "patch", "update"]))
        if kind.scale:
            resources.append(
                _sub(kind, "scale", "Scale", ["get", "patch", "update"]) | {"group": "autoscaling", "version": "v1"}
            )
        for name, what, verbs in (
            ("log", "Pod", ["get"]),
            ("binding", "Binding", ["create"]),
            ("eviction", "Eviction", ["create"]),
        ):
            if name in kind.subresources:
                resources.append(_sub(kind, name, what, verbs))
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}


def _sub(kind: Kind, name: str, what: str, verbs: list[str]) -> Object:
    return {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": what,
        "verbs": verbs,
    }


def _openapi(kinds: list[Kind]) -> Object | None:
    """No more than makes `kubectl` leave the validation to the server."""
    if not kinds:
        return None
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    paths = {}
    for kind in kinds:
        names = {"group": kind.group, "version": kind.version, "kind": kind.name}
        base = f"/{'apis' if kind.group else 'api'}/{kind.api_version}/"
        path = (
            f"{base}namespaces/{{namespace}}/{kind.plural}/{{name}}"
            if kind.namespaced
            else f"{base}{kind.plural}/{{name}}"
        )
        patch = {
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": names,
            "parameters": parameters,
            "responses": {},
        }
        paths[path] = {"patch": patch}
    info = {"title": "Kubernetes", "version": "v1.36.3"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
