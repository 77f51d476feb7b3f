"""The tracer of a process: the OpenTelemetry SDK, set up by the standard `OTEL_*` variables.

Without an endpoint, spans are made (so that contexts travel) and exported nowhere. `OTEL_SDK_DISABLED`,
`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*` and `OTEL_SPAN_*` are read by the SDK itself.
`OTEL_SERVICE_NAME` is not: one environment starts many of our services.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from services.common.telemetry import exporting
from services.common.telemetry.w3c import context_of


class _Ids(RandomIdGenerator):
    """Random ids, except for a span whose id others have been told already."""

    next_span_id: int | None = None

    def generate_span_id(self) -> int:
        """The id asked for, once; else a random one."""
        chosen, self.next_span_id = self.next_span_id, None
        return chosen or super().generate_span_id()


@dataclass(frozen=True)
class Telemetry:
    """A process's tracing."""

    tracer: Tracer
    _ids: _Ids
    _export: exporting.Export | None

    def record(
        self,
        name: str,
        parent: str | Context,
        start_ns: int,
        end_ns: int,
        *,
        attributes: Mapping[str, str | bool | int | float] | None = None,
        error: str = "",
        span_id: int | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        """Record a span of something that is over. Times are nanoseconds since 1970; `error` is for people.

        With `span_id`, a span whose children were made before it by `child_traceparent`. Call it on the event loop.
        """
        context = context_of(parent) if isinstance(parent, str) else parent
        self._ids.next_span_id = span_id
        span = self.tracer.start_span(name, context, kind, attributes, start_time=start_ns)
        self._ids.next_span_id = None
        if error:
            fail(span, error)
        span.end(end_ns)

    def shutdown(self) -> None:
        """Export what is waiting and end. Blocks, for about 2 s at most; the last thing a process does."""
        if self._export is not None:
            self._export.shutdown()


def fail(span: Span, message: str) -> None:
    """Mark what a span stands for as gone wrong."""
    span.set_status(Status(StatusCode.ERROR, message[:1000]))


def start(service_name: str) -> Telemetry:
    """Begin tracing. Raises `SettingsError` when the `OTEL_*` variables ask for what is not installed."""
    ids = _Ids()
    resource = Resource.create({"service.name": service_name, "service.version": version("cortex-batch")})
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    return Telemetry(provider.get_tracer("cortex-batch"), ids, exporting.begin(provider))
