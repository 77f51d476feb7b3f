"""Tracing, as every service does it: one `start`, one tracer to hand on, no global provider.

Spans go to the endpoint that the standard `OTEL_*` variables name (`exporting.py`), between services the W3C context
travels in gRPC metadata (`interceptors.py`), and where a context is stored or sent by other means it is a `traceparent`
string (`w3c.py`).
"""

from services.common.telemetry.interceptors import HEADER, TracingServerInterceptor, client_interceptors
from services.common.telemetry.provider import Telemetry, start
from services.common.telemetry.w3c import (
    child_traceparent,
    context_of,
    new_span_id,
    new_traceparent,
    sampled,
    trace_id,
    traceparent,
)

__all__ = [
    "HEADER",
    "Telemetry",
    "TracingServerInterceptor",
    "child_traceparent",
    "client_interceptors",
    "context_of",
    "new_span_id",
    "new_traceparent",
    "sampled",
    "start",
    "trace_id",
    "traceparent",
]
