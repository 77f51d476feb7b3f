"""Keeps web pages from driving the gateway through their visitor's browser.

A page that is open in a browser on this machine can send requests to loopback. Two things give it away: under DNS
rebinding the Host header carries the page's own name, and otherwise Origin and Sec-Fetch-Site tell where it comes
from. There are no CORS headers, so that a page reads no answer either; a websocket needs none, so it is refused.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.problems import HttpError, Problem
from services.gateway.settings import LOOPBACK_NAMES

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})


class Guards:
    """Refuses with 403 what a page of another site has sent.

    `hosts` are the names under which the gateway is known; None lets any name pass.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else LOOPBACK_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise `HttpError`."""
        headers = Headers(scope=scope)
        if self._hosts is not None and over_tcp(scope):
            _check_host(headers, self._hosts)
        if scope["method"] not in _READING or scope["type"] == "websocket":
            _check_origin(headers)
        await self._app(scope, receive, send)


def over_tcp(scope: Scope) -> bool:
    """False for the unix socket, which only this user's processes reach."""
    server: tuple[str, int | None] | None = scope.get("server")
    return server is not None and server[1] is not None


def _check_host(headers: Headers, hosts: frozenset[str]) -> None:
    given = headers.getlist("host")
    if len(given) != 1 or _name(given[0]) not in hosts:
        raise _refused(
            "endpoints.host_not_allowed",
            f"the Host header is {', '.join(given)!r}, which is not a name of this gateway: use a loopback address, "
            "or run it with CORTEX_INSECURE=true where every name is meant to work",
        )


def _check_origin(headers: Headers) -> None:
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    host = headers.get("host", "").lower()
    if site not in _OWN_SITE or (origin is not None and origin.lower().partition("://")[2] != host):
        raise _refused(
            "endpoints.cross_site_request",
            f"this request was sent by a web page of another site (Origin {origin}, Sec-Fetch-Site {site}); such "
            "pages may not change anything here",
        )


def _name(host: str) -> str:
    """A Host header's name, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _refused(kind: str, message: str) -> HttpError:
    return HttpError(Problem(403, kind, message))
