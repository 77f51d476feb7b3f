"""Sending spans away as the `OTEL_*` variables say, so that it can neither slow a process down nor fill its log.

An endpoint `unix:PATH` is the collector of this machine (`local.py`). To any other a thread of the SDK sends, every
half second, with the standard OTLP exporter and all of its settings. That exporter is imported with the first spans: it
costs a tenth of a second and megabytes, which a process without spans does not pay. While the endpoint cannot be
reached spans are dropped, which is said once.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from services.common.settings import Environment, SettingsError
from services.common.telemetry.local import LocalExport

log = logging.getLogger(__name__)

SCHEDULE_DELAY_MS = 500
"""Ended spans wait at most so long, unless OTEL_BSP_SCHEDULE_DELAY says otherwise."""

SHUTDOWN_S = 2.0
"""What the last spans get to be sent."""

_EXPORTERS = {
    "grpc": ("opentelemetry.exporter.otlp.proto.grpc", "opentelemetry-exporter-otlp-proto-grpc"),
    "http/protobuf": ("opentelemetry.exporter.otlp.proto.http", "opentelemetry-exporter-otlp-proto-http"),
}
"""Protocol -> the exporter's package and the distribution that has it."""

_LIBRARY_LOGGERS = (*(package for package, _ in _EXPORTERS.values()), "opentelemetry.sdk._shared_internal")
"""They say again and again what `_LateExporter` says once."""


class Export(Protocol):
    """The way out of the process."""

    def shutdown(self) -> None:
        """Send what is waiting, for about `SHUTDOWN_S` at most."""


@dataclass(frozen=True)
class _ThreadedExport:
    """The SDK's thread with the standard exporter."""

    _processor: BatchSpanProcessor
    _exporter: SpanExporter

    def shutdown(self) -> None:
        """Send what is waiting; after `SHUTDOWN_S` give it up."""
        flush = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        flush.start()
        flush.join(SHUTDOWN_S)
        if flush.is_alive():
            self._exporter.shutdown()


class _LateExporter(SpanExporter):
    """Stands for the OTLP exporter, which it makes when the first spans are there."""

    def __init__(self, package: str, endpoint: str) -> None:
        self._package = package
        self._endpoint = endpoint
        self._exporter: SpanExporter | None = None
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Runs in the processor's thread."""
        result, reason = SpanExportResult.FAILURE, "no answer"
        try:
            if self._exporter is None:
                self._exporter = _make(self._package)
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # the border of the thread; settings that only the exporter reads
            reason = f"{type(error).__name__}: {error}"
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("spans cannot be sent to %s and are dropped until they can (%s)", self._endpoint, reason)
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Break off what is being sent."""
        if self._exporter is not None:
            self._exporter.shutdown()


def _make(package: str) -> SpanExporter:
    return cast("SpanExporter", import_module(f"{package}.trace_exporter").OTLPSpanExporter())


def begin(provider: TracerProvider) -> Export | None:
    """Export a provider's spans as the environment says; None when it names no endpoint."""
    environment = Environment(os.environ)
    endpoint = environment.optional("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.optional(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    switched_off = environment.flag("OTEL_SDK_DISABLED") or environment.optional("OTEL_TRACES_EXPORTER") == "none"
    if endpoint is None or switched_off:
        return None
    package = _exporter_package(environment)
    if endpoint.startswith("unix:"):
        local = LocalExport(endpoint)
        provider.add_span_processor(local)
        return local
    for name in _LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    exporter = _LateExporter(package, endpoint)
    delay = None if environment.optional("OTEL_BSP_SCHEDULE_DELAY") else SCHEDULE_DELAY_MS
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=delay)
    provider.add_span_processor(processor)
    return _ThreadedExport(processor, exporter)


def _exporter_package(environment: Environment) -> str:
    variable = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    if environment.optional(variable) is None:
        variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = environment.text(variable, "grpc")
    if protocol not in _EXPORTERS:
        raise SettingsError(f"{variable} must be one of {', '.join(_EXPORTERS)}, not {protocol!r}")
    package, distribution = _EXPORTERS[protocol]
    if find_spec(package) is None:
        raise SettingsError(f"{variable} is {protocol!r}, but the exporter for it is missing: install {distribution}")
    return package
