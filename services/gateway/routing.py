"""From a request to its handler: our own routes first, then the endpoints that users gave their APIs."""

from collections.abc import Sequence
from typing import cast

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from services.gateway.problems import HttpError, Problem


class Routing:
    """The innermost layer. `endpoints` takes every path that no route has."""

    def __init__(self, routes: Sequence[BaseRoute], endpoints: Route) -> None:
        self.routes = routes
        self.endpoints = endpoints
        self._router = Router(routes, redirect_slashes=False, default=self._to_endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on. Raises `HttpError` for a method that its route does not take."""
        scope["app"] = self  # makes the router raise instead of answering by itself
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code != 405:
                raise
            allowed = f"{(error.headers or {})['Allow']}, OPTIONS"
            if scope["method"] != "OPTIONS":
                problem = _wrong_method(scope, allowed)
                raise HttpError(problem) from error
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)

    async def _to_endpoint(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise HttpError(Problem(404, "endpoints.not_found", f"no websocket is served at {scope['path']}"))
        scope["route"] = self.endpoints
        await self.endpoints.handle(scope, receive, send)


def _wrong_method(scope: Scope, allowed: str) -> Problem:
    path, method = cast("str", scope["path"]), scope["method"]
    return Problem(
        405, "endpoints.method_not_allowed", f"{path} does not take {method}, but {allowed}", {"Allow": allowed}
    )
