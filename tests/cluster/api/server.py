"""HTTP on loopback: addresses to verbs, and the faults that tests ask for."""

import asyncio
import base64
import json
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from tests.cluster.api import discovery, subresources, watching
from tests.cluster.api.api import Api, Write
from tests.cluster.api.apply import Writer
from tests.cluster.api.deletion import Deletion
from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.lists import lists_of
from tests.cluster.api.patching import json_patch, merge_patch, parsed, strategic_merge
from tests.cluster.api.requests import Target, body_of, target
from tests.cluster.api.rights import Rights
from tests.cluster.api.selectors import selector
from tests.cluster.api.tables import table

log = logging.getLogger(__name__)

_MOST_BYTES = 3 * 1024 * 1024  # the real server's limit for a request
Answer = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Refusal:
    """Requests that fail on purpose."""

    method: str
    path: re.Pattern[str]
    error: ApiError
    times: int


class Server:
    """The API server at `http://127.0.0.1:port`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.port = 0
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request so far."""
        self.rights = Rights()
        self._refusals: list[Refusal] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen: at a free port the first time, at the same one again later."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break every connection and listen no more."""
        if self._runner is not None:
            for connection in self._runner.server.connections if self._runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    def refuse(self, method: str, path: str, code: int, times: int = 1, message: str = "refused on purpose") -> None:
        """Fail the next requests whose path the pattern matches (`re.search`)."""
        self._refusals.append(Refusal(method, re.compile(path), ApiError(code, message), times))

    def cut_connections(self) -> None:
        """Break every connection in the middle of whatever it does; new ones are welcome."""
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        try:
            self._maybe_refuse(request)
            return await self._routed(request)
        except ApiError as error:
            return _json(error.status(), error.code)
        except web.HTTPRequestEntityTooLarge:
            return _json(ApiError(413, f"Request entity too large: limit is {_MOST_BYTES}").status(), 413)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.exception("%s %s", request.method, request.path)
            return _json(ApiError(500, f"the tests' API server failed: {error!r}").status(), 500)

    def _maybe_refuse(self, request: web.Request) -> None:
        for refusal in self._refusals:
            if refusal.times and refusal.method == request.method and refusal.path.search(request.path):
                refusal.times -= 1
                raise refusal.error

    async def _routed(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/healthz", "/readyz", "/livez"):
            return web.Response(text="ok")
        if (document := discovery.answer(self.api.kinds, request.path, request.host)) is not None:
            return _json(document)
        aim = target(self.api.kinds, request.path)
        if aim is None:
            raise ApiError(404, "the server could not find the requested resource")
        self.rights.check(request, aim, exists=self._exists(aim))
        if aim.subresource and aim.subresource != "status":
            return await subresources.answer(self.api, request, aim)
        if aim.subresource == "status" and not aim.kind.status:
            raise ApiError(404, "the server could not find the requested resource")
        verbs: dict[tuple[str, bool], Answer] = {
            ("GET", True): self._get,
            ("GET", False): self._list,
            ("POST", False): self._create,
            ("PUT", True): self._replace,
            ("PATCH", True): self._patch,
            ("DELETE", True): self._delete,
            ("DELETE", False): self._delete_all,
        }
        verb = verbs.get((request.method, bool(aim.name)))
        if verb is None:
            raise ApiError(405, "the server does not allow this method on the requested resource")
        return await verb(request, aim)

    def _exists(self, aim: Target) -> bool:
        with suppress(ApiError):
            return bool(self.api.get(aim.kind, aim.namespace, aim.name))
        return False

    async def _get(self, request: web.Request, aim: Target) -> web.StreamResponse:
        thing = self.api.get(aim.kind, aim.namespace, aim.name)
        if as_table(request):
            return _json(table(aim.kind, [thing], {}, request.query.get("includeObject", "Metadata")))
        return _json(thing)

    async def _list(self, request: web.Request, aim: Target) -> web.StreamResponse:
        query = request.query
        match = selector(aim.kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if query.get("watch") in ("true", "1"):
            return await self._watch(request, aim)
        found = [thing for thing in self.api.store.all(aim.kind, aim.namespace) if match(thing)]
        version = self.api.store.version
        metadata: Object = {"resourceVersion": str(version)}
        if limit := int(query.get("limit") or 0):
            start = _continued(query.get("continue", ""), self.api.store.oldest)
            rest = [thing for thing in found if _place(thing) > start]
            if len(rest) > limit:
                token = json.dumps({"rv": version, "start": _place(rest[limit - 1])}).encode()
                metadata["continue"] = base64.urlsafe_b64encode(token).decode()
                metadata["remainingItemCount"] = len(rest) - limit
            found = rest[:limit]
        if as_table(request):
            return _json(
                table(
                    aim.kind,
                    [self.api.shown(aim.kind, one) for one in found],
                    metadata,
                    query.get("includeObject", "Metadata"),
                )
            )
        items = [{name: part for name, part in one.items() if name not in ("apiVersion", "kind")} for one in found]
        if aim.kind.custom:
            items = [self.api.shown(aim.kind, one) for one in found]
        return _json(
            {"kind": f"{aim.kind.name}List", "apiVersion": aim.kind.api_version, "metadata": metadata, "items": items}
        )

    async def _watch(self, request: web.Request, aim: Target) -> web.StreamResponse:
        query, kind = request.query, aim.kind
        match = selector(kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        since = None if query.get("resourceVersion", "") in ("", "0") else int(query["resourceVersion"])
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(float(query["timeoutSeconds"]) if query.get("timeoutSeconds") else None):
                try:
                    async for event in watching.events(self.api.store, kind, aim.namespace, match, since, bookmarks):
                        await answer.write(watching.line(self._shown(request, kind, event)))
                except ApiError as error:
                    await answer.write(watching.line(watching.error_event(error)))
        with suppress(ConnectionError):
            await answer.write_eof()
        return answer

    def _shown(self, request: web.Request, kind: Kind, event: Object) -> Object:
        if event["type"] == "BOOKMARK":
            return event
        thing = self.api.shown(kind, event["object"])
        if as_table(request):
            thing = table(kind, [thing], {}, request.query.get("includeObject", "Metadata"))
        return {**event, "object": thing}

    async def _create(self, request: web.Request, aim: Target) -> web.StreamResponse:
        how = write_of(request, "", "Update")
        given = await body_of(request)
        _name_agrees(given, aim)
        if aim.kind.plural == "bindings":
            return subresources.bind(self.api, given, aim.namespace, given["metadata"]["name"])
        return _json(self.api.create(aim.kind, aim.namespace, given, how), 201, how)

    async def _replace(self, request: web.Request, aim: Target) -> web.StreamResponse:
        how = write_of(request, aim.subresource, "Update")
        thing = await body_of(request)
        return _json(self.api.replace(aim.kind, aim.namespace, aim.name, thing, how), 200, how)

    async def _patch(self, request: web.Request, aim: Target) -> web.StreamResponse:
        kind, place = aim.kind, (aim.kind, aim.namespace, aim.name)
        if request.content_type == "application/apply-patch+yaml":
            if not request.query.get("fieldManager"):
                raise ApiError(
                    422,
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
                    "Invalid",
                )
            how = write_of(request, aim.subresource, "Apply")
            configuration = await body_of(request)
            created = self.api.store.get(*place) is None
            thing = self.api.apply(*place, configuration, how, request.query.get("force") in ("true", "1"))
            return _json(thing, 201 if created else 200, how)
        how = write_of(request, aim.subresource, "Update")
        patch = parsed(await request.read())
        match request.content_type:
            case "application/json-patch+json":
                thing = self.api.change(*place, lambda live: json_patch(live, patch), how)
            case "application/merge-patch+json":
                thing = self.api.change(*place, lambda live: merge_patch(live, patch), how)
            case "application/strategic-merge-patch+json" if not kind.custom:
                thing = self.api.change(*place, lambda live: strategic_merge(live, patch, lists_of(kind)), how)
            case _:
                accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                raise ApiError(
                    415, f"the body of the request was in an unknown format - accepted media types include: {accepted}"
                )
        return _json(thing, 200, how)

    async def _delete(self, request: web.Request, aim: Target) -> web.StreamResponse:
        options = Deletion.parse(await body_of(request), dict(request.query))
        thing = self.api.delete(aim.kind, aim.namespace, aim.name, options, "dryRun" in request.query)
        if self.api.store.get(aim.kind, aim.namespace, aim.name) is not None or aim.kind.plural == "pods":
            return _json(thing)
        details = {"name": aim.name, "kind": aim.kind.plural, "uid": thing["metadata"]["uid"]}
        details |= {"group": aim.kind.group} if aim.kind.group else {}
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def _delete_all(self, request: web.Request, aim: Target) -> web.StreamResponse:
        options = Deletion.parse(await body_of(request), dict(request.query))
        match = selector(aim.kind, request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        found = [thing for thing in self.api.store.all(aim.kind, aim.namespace) if match(thing)]
        for thing in found:
            self.api.delete(aim.kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"], options)
        return _json(
            {"kind": f"{aim.kind.name}List", "apiVersion": aim.kind.api_version, "metadata": {}, "items": found}
        )


def write_of(request: web.Request, subresource: str, operation: str) -> Write:
    """How this request writes."""
    manager = request.query.get("fieldManager") or request.headers.get("User-Agent", "unknown").partition("/")[0]
    validation = request.query.get("fieldValidation") or "Warn"
    return Write(
        Writer(manager, operation, subresource), subresource, "All" in request.query.getall("dryRun", []), validation
    )


def as_table(request: web.Request) -> bool:
    """Whether the caller would rather have a table."""
    return "as=Table" in request.headers.get("Accept", "").partition(",")[0]


def _name_agrees(given: Object, aim: Target) -> None:
    if aim.kind.namespaced and not aim.namespace:
        raise ApiError(405, "the server does not allow this method on the requested resource")
    if not isinstance(given.get("metadata") or {}, dict):
        raise ApiError(400, f"the object has no metadata: {given}")


def _place(thing: Object) -> list[str]:
    return [thing["metadata"].get("namespace", ""), thing["metadata"]["name"]]


def _continued(token: str, oldest: int) -> list[str]:
    if not token:
        return ["", ""]
    try:
        known = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise ApiError(400, f"continue key is not valid: {error}") from error
    if known["rv"] < oldest:
        raise ApiError(410, "The provided continue parameter is too old to display a consistent list result.")
    return list(known["start"])


def _json(thing: Object, code: int = 200, how: Write | None = None) -> web.Response:
    answer = web.json_response(thing, status=code)
    for sentence in how.warnings if how else ():
        answer.headers.add("Warning", f'299 - "{sentence.replace(chr(34), chr(92) + chr(34))}"')
    return answer
