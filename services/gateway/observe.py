"""What is noted about every request, whatever becomes of it: id, log line, metrics, span; and its errors' answers.

This is the border of a request's task, so everything that was raised below ends here.
"""

import logging
import re
import secrets
import time
from email.utils import formatdate
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span, use_span
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.errors import CortexError
from services.common.telemetry import context_of, new_traceparent, trace_id, traceparent
from services.gateway import problems
from services.gateway.body import BodyTooLarge, ClientGone, DrainingResponse
from services.gateway.metrics import RequestMetrics
from services.gateway.problems import HttpError, Problem
from services.gateway.scheduler import request_id

log = logging.getLogger(__name__)

_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds, by machines: no span, and a log line only when debugging."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE = 499
"""What nginx writes into its log for a client that did not wait."""
MAX_REFUSAL_BYTES = 1024
"""Go's usual websocket client reads no more of the answer that refuses it."""


class Observe:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, tracer: Tracer, metrics: RequestMetrics) -> None:
        self._app = app
        self._tracer = tracer
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open a websocket."""
        if scope["type"] not in ("http", "websocket"):
            return
        scope.setdefault("method", "GET")  # a websocket begins with one
        exchange = _Exchange(scope, send)
        request_id.set(exchange.request_id)
        quiet = scope["path"] in _QUIET
        try:
            if quiet:
                with use_span(get_current_span(context_of(new_traceparent(sampled=False)))):
                    await self._answer(exchange, receive)
            else:
                await self._answer_traced(exchange, receive)
        finally:
            self._note(exchange, logging.DEBUG if quiet else logging.INFO)

    async def _answer_traced(self, exchange: "_Exchange", receive: Receive) -> None:
        scope = exchange.scope
        span = self._tracer.start_span(
            scope["method"],
            context_of(exchange.headers.get("traceparent", "")),
            SpanKind.SERVER,
            {
                "http.request.method": scope["method"],
                "url.path": scope["path"],
                "cortex.request_id": exchange.request_id,
            },
        )
        exchange.trace_id = trace_id(traceparent(span))
        with use_span(span, end_on_exit=True):
            await self._answer(exchange, receive)
            _describe(span, exchange)

    async def _answer(self, exchange: "_Exchange", receive: Receive) -> None:
        try:
            await self._app(exchange.scope, receive, exchange.send)
        except ClientGone:
            exchange.status = _CLIENT_GONE
        except Exception as error:
            if exchange.status:  # half an answer is out: all that is left is to break off, and the server logs why
                raise
            problem = _problem(error)
            if exchange.scope["type"] == "websocket":
                problem = problem.within(MAX_REFUSAL_BYTES)
            answer = problem.response()
            if isinstance(error, BodyTooLarge):
                answer = DrainingResponse(problem.json(), problem.status, problem.headers, "application/json")
            await answer(exchange.scope, receive, exchange.send)

    def _note(self, exchange: "_Exchange", level: int) -> None:
        scope = exchange.scope
        self._metrics.count(scope["method"], exchange.route, exchange.status, exchange.seconds_to_answer)
        log.log(
            level,
            "%s %s %d %.1f ms request_id=%s trace_id=%s",
            scope["method"],
            scope["path"],
            exchange.status,
            (time.perf_counter() - exchange.started) * 1000,
            exchange.request_id,
            exchange.trace_id,
        )


_SWITCHING_PROTOCOLS = 101
_HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


class _Exchange:
    """A request and what is known of its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.started = time.perf_counter()
        self.seconds_to_answer = 0.0
        self.status = 0
        self.trace_id = ""
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self._send = send

    @property
    def route(self) -> str:
        """The route's pattern, which has few values, unlike the path."""
        route: Any = self.scope.get("route")
        return route.path_format if route is not None else "other"

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer; its head with what every answer carries."""
        if message["type"] in _HEADS:
            self.status = message.get("status", _SWITCHING_PROTOCOLS)
            self.seconds_to_answer = time.perf_counter() - self.started
            headers = MutableHeaders(scope=message)
            headers["Date"] = formatdate(usegmt=True)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            if self.trace_id:
                headers["X-Trace-Id"] = self.trace_id
        await self._send(message)


def _describe(span: Span, exchange: _Exchange) -> None:
    span.update_name(f"{exchange.scope['method']} {exchange.route}")
    span.set_attribute("http.route", exchange.route)
    span.set_attribute("http.response.status_code", exchange.status)
    if exchange.status >= 500:
        span.set_status(Status(StatusCode.ERROR, f"status {exchange.status}"))


def _problem(error: Exception) -> Problem:
    match error:
        case CortexError():
            return problems.of(error)
        case HttpError():
            return error.problem
        case _:
            log.exception("a request failed", exc_info=error)
            return problems.unexpected(error)
