"""From OTLP to the few facts of a span that people look at.

Whoever reaches the collector may send it anything, so everything here has a bound: what is too long is cut, what cannot
be placed in a trace is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from cortex.batch.v1 import trace_service_pb2

MAX_NAME = 200
MAX_TEXT = 1024
MAX_ATTRIBUTES = 32
MAX_LIST = 16
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A span and the trace it belongs to."""

    trace_id: bytes
    span: trace_service_pb2.Span

    @property
    def kind(self) -> str:
        """Spans of one kind do the same thing again and again."""
        return f"{self.span.service_name} {self.span.name}"


def placed(request: ExportTraceServiceRequest) -> Iterator[Placed]:
    """The spans of a request; those with impossible ids are left out."""
    for resource in request.resource_spans:
        service = _service_name(resource)
        for scope in resource.scope_spans:
            for span in scope.spans:
                if _is_id(span.trace_id, 16) and _is_id(span.span_id, 8):
                    yield Placed(span.trace_id, _reduced(span, service))


def _reduced(span: trace_pb2.Span, service: str) -> trace_service_pb2.Span:
    start = min(span.start_time_unix_nano, _MAX_INT64)
    return trace_service_pb2.Span(
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex() if _is_id(span.parent_span_id, 8) else "",
        name=_clean(span.name, MAX_NAME),
        service_name=service,
        start_unix_nano=start,
        end_unix_nano=max(start, min(span.end_time_unix_nano, _MAX_INT64)),
        attributes={_clean(a.key, MAX_NAME): _text(a.value) for a in islice(span.attributes, MAX_ATTRIBUTES)},
        error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        status_message=_clean(span.status.message, MAX_TEXT),
    )


def _service_name(resource: trace_pb2.ResourceSpans) -> str:
    for attribute in resource.resource.attributes:
        if attribute.key == "service.name":
            return _clean(attribute.value.string_value, MAX_NAME)
    return ""


def _is_id(value: bytes, length: int) -> bool:
    return len(value) == length and any(value)


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return _clean(value.string_value, MAX_TEXT)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind in ("int_value", "double_value"):
        return str(getattr(value, kind))
    if kind == "bytes_value":
        return value.bytes_value[: MAX_TEXT // 2].hex()
    if kind == "array_value":
        shown = (_text(v) for v in islice(value.array_value.values, MAX_LIST))
        return _clean(", ".join(shown), MAX_TEXT)
    return "{...}" if kind == "kvlist_value" else ""


def _clean(text: str, limit: int) -> str:
    """Cut, and nothing in it that steers a terminal."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
