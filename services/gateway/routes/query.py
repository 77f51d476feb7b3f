"""Query parameters. Of several with one name the first counts, as in Go's `url.Values.Get`."""

from starlette.requests import HTTPConnection

from services.gateway import problems

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"", "0", "f", "false"})


def text(request: HTTPConnection, name: str) -> str:
    """A parameter; empty when it is not there."""
    return next(iter(request.query_params.getlist(name)), "")


def required(request: HTTPConnection, name: str) -> str:
    """A parameter. Raises `endpoints.query_param_required` when it is missing or empty."""
    value = text(request, name)
    if not value:
        raise problems.missing_query(name, f"{request.url.path}?{name}=...")
    return value


def flag(request: HTTPConnection, name: str) -> bool:
    """A parameter that is true or false; false when it is not there."""
    value = text(request, name)
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise problems.bad_query(name, value, "true or false")
