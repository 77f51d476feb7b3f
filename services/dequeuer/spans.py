"""Spans of what happens with the container. They are made when it is over, so that an unsampled batch costs nothing.

The context of a sampled batch's span is known before: it goes into the request's header, so that what the container
does stands below it. A failed attempt always gets a span, in an unsampled trace too.
"""

import time
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from services.common.telemetry import Telemetry, child_traceparent, new_span_id, sampled
from services.dequeuer.lease import Lease


class Request(NamedTuple):
    """A request's place in a trace."""

    traceparent: str
    """For the request's header; empty for none."""
    span_id: int | None
    """The id of the span to record; None where none was asked for."""


class Spans:
    """The spans of one worker."""

    def __init__(self, telemetry: Telemetry, job_id: str, worker: int) -> None:
        self._telemetry = telemetry
        self._worker: dict[str, str | bool | int | float] = {"cortex.job_id": job_id, "cortex.worker": worker}

    def begin(self, parent: str) -> Request:
        """A request starts."""
        if not parent or parent[-1] not in "13579bdf" or not sampled(parent):  # mostly settled by the flag's digit
            return Request(parent, None)
        span_id = new_span_id()
        return Request(child_traceparent(parent, span_id, sampled=True), span_id)

    def delivered(self, lease: Lease, request: Request, status: int, duration_s: float, error: str) -> None:
        """An attempt has ended."""
        if request.span_id is None and not error:
            return
        facts = {"cortex.batch": lease.batch, "cortex.attempt": lease.attempt}
        self._record("deliver batch", lease.traceparent, request, status, duration_s, error, facts)

    def completed(self, parent: str, request: Request, status: int, duration_s: float, error: str) -> None:
        """The container answered, or did not answer, /on-job-complete."""
        self._record("on-job-complete", parent, request, status, duration_s, error, {})

    def _record(
        self,
        name: str,
        parent: str,
        request: Request,
        status: int,
        duration_s: float,
        error: str,
        facts: dict[str, int],
    ) -> None:
        end_ns = time.time_ns()
        attributes = self._worker | facts | ({"http.response.status_code": status} if status else {})
        self._telemetry.record(
            name,
            f"{parent[:-2]}01" if parent else "",  # the sampled flag, whatever it was: see the module's text
            end_ns - int(duration_s * 1e9),
            end_ns,
            attributes=attributes,
            error=error,
            span_id=request.span_id,
            kind=SpanKind.CLIENT,
        )
