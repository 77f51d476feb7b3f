"""What an API server's refusals, and its silence, mean to people and to programs."""

import json

from services.common.errors import Category, CortexError

NOT_FOUND = "kubernetes.not_found"
CONFLICT = "kubernetes.conflict"
"""Somebody else changed it meanwhile, or what was demanded of it does not hold."""
EXISTS = "kubernetes.already_exists"
GONE = "kubernetes.gone"
"""The version that was asked for is too old to go on from."""
FORBIDDEN = "kubernetes.forbidden"
INVALID = "kubernetes.invalid"
UNAVAILABLE = "kubernetes.unavailable"

_KINDS = {
    400: (INVALID, Category.INVALID),
    401: (FORBIDDEN, Category.UNAUTHENTICATED),
    403: (FORBIDDEN, Category.UNAUTHENTICATED),
    404: (NOT_FOUND, Category.NOT_FOUND),
    409: (CONFLICT, Category.CONFLICT),
    410: (GONE, Category.CONFLICT),
    413: (INVALID, Category.TOO_LARGE),
    422: (INVALID, Category.INVALID),
}


def refusal(status: int, body: bytes, doing: str) -> CortexError:
    """The error that an answer stands for. `doing` says what was asked, such as `create jobs/x in default`."""
    told = _status_of(body)
    kind, category = _KINDS.get(status, (UNAVAILABLE, Category.UNAVAILABLE))
    if status == 409 and told.get("reason") == "AlreadyExists":
        kind = EXISTS
    said = str(told.get("message") or body[:500].decode(errors="replace").strip() or f"status {status}")
    hint = ": give this service's account that right (see the chart's roles)" if kind == FORBIDDEN else ""
    return CortexError(kind, f"Kubernetes refuses to {doing}: {said}{hint}", category)


def silence(error: Exception, doing: str) -> CortexError:
    """The error for no answer at all."""
    why = str(error) or type(error).__name__
    return CortexError(UNAVAILABLE, f"Kubernetes does not answer ({doing}): {why}", Category.UNAVAILABLE)


def _status_of(body: bytes) -> dict[str, object]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
