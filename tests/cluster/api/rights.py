"""Who may do what: RBAC's roles, for those who show a token. Who shows none may do everything.

cluster.server.rights.grant("scheduler", "default", role)     # a Role's `rules`, as in its manifest
"""

from collections import defaultdict
from dataclasses import dataclass, field

from aiohttp import web

from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Object
from tests.cluster.api.requests import Target

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
Right = tuple[str, str, str]
"""API group, resource (with its subresource), verb."""


@dataclass
class Rights:
    """Everybody's, by token."""

    _granted: dict[str, list[tuple[str, Object]]] = field(default_factory=lambda: defaultdict(list))
    used: dict[str, set[Right]] = field(default_factory=lambda: defaultdict(set))
    """What each token was used for."""

    def grant(self, token: str, namespace: str, role: Object) -> None:
        """Bind a Role to a token, in a namespace; `""` for all (a ClusterRole)."""
        self._granted[token] += [(namespace, rule) for rule in role["rules"]]

    def check(self, request: web.Request, aim: Target, *, exists: bool) -> None:
        """Raises `ApiError` (403) for what a token's roles do not allow. `exists`: the object is there already."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return
        verb = _verb(request, aim)
        self._check(token, aim, verb)
        if verb == "patch" and not exists and request.content_type == "application/apply-patch+yaml":
            self._check(token, aim, "create")

    def _check(self, token: str, aim: Target, verb: str) -> None:
        resource = f"{aim.kind.plural}/{aim.subresource}" if aim.subresource else aim.kind.plural
        group = aim.kind.group
        for namespace, rule in self._granted.get(token, ()):
            if namespace in ("", aim.namespace) and _allows(rule, (group, resource, verb), aim.name):
                self.used[token].add((group, resource, verb))
                return
        where = f'in the namespace "{aim.namespace}"' if aim.namespace else "at the cluster scope"
        raise ApiError(
            403,
            f'{resource} is forbidden: User "{token}" cannot {verb} resource "{resource}" '
            f'in API group "{group}" {where}',
        )


def rights_of(role: Object) -> set[Right]:
    """All that a Role allows."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _verb(request: web.Request, aim: Target) -> str:
    verb = _VERBS[request.method]
    if verb == "get" and not aim.name:
        return "watch" if request.query.get("watch") in ("1", "true") else "list"
    return verb


def _allows(rule: Object, right: Right, name: str) -> bool:
    group, resource, verb = right
    named = rule.get("resourceNames")
    return (
        group in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and (not named or name in named)
    )
