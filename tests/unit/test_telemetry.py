"""The telemetry kit: W3C strings, spans that reach an endpoint, contexts that cross gRPC calls."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.common import telemetry
from services.common.errors import Category, CortexError
from services.common.grpc_errors import ErrorInterceptor
from services.common.settings import SettingsError
from services.common.telemetry.local import MAX_WAITING

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINT_VARIABLES, "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


# W3C strings


def test_a_valid_traceparent_survives_the_round_trip() -> None:
    assert telemetry.traceparent(telemetry.context_of(VALID)) == VALID
    assert telemetry.sampled(VALID)
    assert telemetry.trace_id(VALID) == TRACE


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "garbage",
        VALID.upper(),
        VALID + "-extra",  # version 00 has four fields
        VALID[:-1],
        VALID + "\n",
        "ff" + VALID[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        VALID.replace("4bf9", "4bfé"),
        VALID.replace("4", "\u0664"),  # a digit, but not of hex
        "01" + VALID[2:] + "-" + "x" * 600,
        "0" * 1_000_000,
    ],
)
def test_an_invalid_traceparent_counts_as_absent(hostile: str) -> None:
    assert telemetry.context_of(hostile) == Context()
    assert not telemetry.sampled(hostile)
    assert telemetry.trace_id(hostile) == ""


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert telemetry.traceparent(telemetry.context_of("cc" + VALID[2:-2] + "ff-what-comes")) == VALID[:-2] + "03"


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"))
def test_any_text_gives_a_valid_context_or_none(text: str) -> None:
    carried = telemetry.traceparent(telemetry.context_of(text))
    assert carried == "" or telemetry.traceparent(telemetry.context_of(carried)) == carried
    assert telemetry.sampled(text) == telemetry.sampled(carried)


@given(st.integers(1, 2**64 - 1), st.booleans())
def test_a_child_keeps_the_trace_and_names_its_own_span(span_id: int, sampled: bool) -> None:
    child = telemetry.child_traceparent(VALID, span_id, sampled)
    span = trace.get_current_span(telemetry.context_of(child)).get_span_context()
    assert (span.trace_id, span.span_id) == (int(TRACE, 16), span_id)
    assert telemetry.sampled(child) == sampled
    assert telemetry.child_traceparent("", span_id, sampled) == ""


def test_new_contexts_are_valid_and_different() -> None:
    first, second = telemetry.new_traceparent(), telemetry.new_traceparent(sampled=False)
    assert telemetry.sampled(first)
    assert telemetry.trace_id(second)
    assert not telemetry.sampled(second)
    assert telemetry.trace_id(first) != telemetry.trace_id(second)


# Export


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Any]:
        return [s for r in self.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]


@pytest.fixture(params=["unix socket", "port"])
def receiver(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Receiver, grpc.Server]]:
    """A receiver that OTEL_EXPORTER_OTLP_ENDPOINT names: of this machine, and any other."""
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated, untyped
    if request.param == "port":
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        endpoint = f"unix://{tmp_path}/otlp.sock"
        server.add_insecure_port(endpoint)
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    yield receiver, server
    server.stop(None).wait()


async def test_spans_reach_the_endpoint_at_the_latest_at_shutdown(
    receiver: tuple[Receiver, grpc.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the-name-of-all")
    kit = telemetry.start("cortex-test")
    with kit.tracer.start_as_current_span("work") as span:
        context = telemetry.traceparent(span)
    batch = telemetry.new_span_id()
    kit.record("inner", telemetry.child_traceparent(context, batch, sampled=True), 20, 30)
    kit.record("batch", context, 10, 40, attributes={"batch": 7}, error="it broke", span_id=batch)
    kit.shutdown()
    spans = {span.name: span for span in receiver[0].spans}
    assert spans.keys() == {"work", "inner", "batch"}
    assert spans["inner"].parent_span_id == spans["batch"].span_id == batch.to_bytes(8, "big")
    assert spans["batch"].parent_span_id == spans["work"].span_id
    assert (spans["batch"].start_time_unix_nano, spans["batch"].end_time_unix_nano) == (10, 40)
    assert spans["batch"].status.message == "it broke"
    resource = receiver[0].requests[0].resource_spans[0].resource
    assert {a.key: a.value.string_value for a in resource.attributes}["service.name"] == "cortex-test"


async def test_spans_arrive_while_the_process_goes_on(receiver: tuple[Receiver, grpc.Server]) -> None:
    kit = telemetry.start("cortex-test")
    for number in range(300):
        kit.tracer.start_span(f"span {number}").end()
    async with asyncio.timeout(10):
        while len(receiver[0].spans) < 300:
            await asyncio.sleep(0.01)  # the receiver lives in a thread
    assert {span.name for span in receiver[0].spans} == {f"span {number}" for number in range(300)}
    kit.shutdown()
    assert len({span.span_id for span in receiver[0].spans}) == 300


@pytest.mark.parametrize("endpoint", ["unix:///nobody.sock", "http://127.0.0.1:1"])
async def test_a_dead_endpoint_costs_one_warning_and_a_bounded_shutdown(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    kit = telemetry.start("cortex-test")
    async with asyncio.timeout(10):
        while not caplog.records:
            for _ in range(100):
                kit.tracer.start_span("more than can ever wait").end()
            await asyncio.sleep(0.01)  # spans keep coming while sending fails elsewhere
    started = time.monotonic()
    kit.shutdown()
    assert time.monotonic() - started < 3
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1, messages
    assert endpoint in messages[0]


async def test_spans_wait_for_a_collector_that_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"unix://{tmp_path}/otlp.sock")
    monkeypatch.setattr("services.common.telemetry.local.RETRY_S", 0.05)
    kit = telemetry.start("cortex-test")
    kit.tracer.start_span("early").end()
    async with asyncio.timeout(10):
        while not caplog.records:
            await asyncio.sleep(0.01)  # until the first attempt has failed
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated, untyped
    server.add_insecure_port(f"unix:{tmp_path}/otlp.sock")
    server.start()
    async with asyncio.timeout(10):
        while not receiver.spans:
            await asyncio.sleep(0.01)  # the receiver lives in a thread
    assert [span.name for span in receiver.spans] == ["early"]
    kit.shutdown()
    server.stop(None).wait()


@pytest.mark.parametrize("receiver", ["unix socket"], indirect=True)
async def test_spans_that_wait_are_bounded(receiver: tuple[Receiver, grpc.Server]) -> None:
    kit = telemetry.start("cortex-test")
    for _ in range(MAX_WAITING + 1000):
        kit.tracer.start_span("one of too many").end()
    kit.shutdown()
    assert len(receiver[0].spans) == MAX_WAITING


def test_settings_that_cannot_be_met_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(SettingsError, match="carrier-pigeon"):
        telemetry.start("cortex-test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(SettingsError, match="opentelemetry-exporter-otlp-proto-http"):
        telemetry.start("cortex-test")


def test_the_standard_variables_switch_tracing_off_and_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert not telemetry.sampled(telemetry.traceparent(telemetry.start("cortex-test").tracer.start_span("x")))
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///nowhere")
    kit = telemetry.start("cortex-test")
    assert telemetry.traceparent(kit.tracer.start_span("x", telemetry.context_of(VALID))) == VALID
    kit.shutdown()


def test_a_process_without_spans_never_loads_the_exporter() -> None:
    program = """
import os, sys
os.environ.update(OTEL_EXPORTER_OTLP_ENDPOINT="unix:///nobody", OTEL_EXPORTER_OTLP_INSECURE="true")
from services.common import telemetry
kit = telemetry.start("cortex-test")
kit.shutdown()
print(*(m for m in sys.modules if m.startswith(("opentelemetry.proto", "opentelemetry.sdk.metrics"))))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() in (
        "",
        "opentelemetry.exporter opentelemetry.exporter.otlp opentelemetry.exporter.otlp.proto",
    )


# gRPC


@pytest.fixture
def spans(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    assert [record.getMessage() for record in caplog.records] == []  # the SDK warns of spans that end twice


def handlers(tracer: trace.Tracer) -> list[grpc.GenericRpcHandler]:
    async def unary(request: Any, context: Any) -> Any:
        if request.value == "bad":
            raise CortexError("test.bad", "it is bad", Category.NOT_FOUND)
        if request.value == "hang":
            await asyncio.Event().wait()
        with tracer.start_as_current_span("inside"):
            return wrappers_pb2.StringValue(value=telemetry.traceparent(contexts.get_current()))

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield wrappers_pb2.StringValue(value=telemetry.traceparent(contexts.get_current()))
        if request.value == "bad":
            raise CortexError("test.bad", "it is bad", Category.NOT_FOUND)
        if request.value == "hang":
            await asyncio.Event().wait()

    async def both(requests: Any, context: Any) -> AsyncIterator[Any]:
        yield wrappers_pb2.StringValue(value=telemetry.traceparent(contexts.get_current()))

    codecs = (wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString)
    echo = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, *codecs),
        "Stream": grpc.unary_stream_rpc_method_handler(stream, *codecs),
        "Both": grpc.stream_stream_rpc_method_handler(both, *codecs),
    }
    return [
        grpc.method_handlers_generic_handler("cortex.test.v1.Echo", echo),
        grpc.method_handlers_generic_handler("cortex.batch.v1.WorkerService", {"Work": echo["Both"]}),
    ]


class Echo:
    """Calls the service above, each method in its way."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codecs: Any = (wrappers_pb2.StringValue.SerializeToString, wrappers_pb2.StringValue.FromString)
        self._unary: Any = channel.unary_unary("/cortex.test.v1.Echo/Unary", *codecs)
        self._stream: Any = channel.unary_stream("/cortex.test.v1.Echo/Stream", *codecs)
        self._both: Any = channel.stream_stream("/cortex.test.v1.Echo/Both", *codecs)
        self._work: Any = channel.stream_stream("/cortex.batch.v1.WorkerService/Work", *codecs)

    async def unary(self, text: str) -> str:
        return str((await self._unary(wrappers_pb2.StringValue(value=text))).value)

    def stream(self, text: str, **options: Any) -> Any:
        return self._stream(wrappers_pb2.StringValue(value=text), **options)

    async def drain(self, text: str, **options: Any) -> str:
        return " ".join([message.value async for message in self.stream(text, **options)])

    async def both(self) -> str:
        return await self._first(self._both())

    async def work(self) -> str:
        return await self._first(self._work())

    async def _first(self, call: Any) -> str:
        await call.done_writing()
        return str((await call.read()).value)


@pytest.fixture(params=["tracing first", "errors first"])
async def echo(
    request: pytest.FixtureRequest, tmp_path: Path, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> AsyncIterator[Echo]:
    tracer, _ = spans
    interceptors = [telemetry.TracingServerInterceptor(tracer), ErrorInterceptor()]
    server = grpc.aio.server(interceptors=interceptors[:: 1 if request.param == "tracing first" else -1])
    server.add_generic_rpc_handlers(handlers(tracer))
    server.add_insecure_port(f"unix:{tmp_path}/echo.sock")
    await server.start()
    traced = telemetry.client_interceptors(tracer)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/echo.sock", interceptors=traced) as channel:
        yield Echo(channel)
    await server.stop(None)


def by_kind(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {f"{span.kind.name} {span.name}": span for span in exporter.get_finished_spans()}


async def finished(exporter: InMemorySpanExporter, *names: str) -> dict[str, ReadableSpan]:
    """The spans, once these are among them: the caller has its answer a moment before the spans end."""
    async with asyncio.timeout(5):
        while not by_kind(exporter).keys() >= set(names):
            await asyncio.sleep(0.005)
    return by_kind(exporter)


def parent_id(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0


async def test_a_unary_call_is_one_trace_from_caller_to_handler(
    echo: Echo, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    tracer, exporter = spans
    with tracer.start_as_current_span("caller"):
        await echo.unary("x")
    chain = ["INTERNAL caller", "CLIENT Echo/Unary", "SERVER Echo/Unary", "INTERNAL inside"]
    found = await finished(exporter, *chain)
    assert set(found) == set(chain)
    for upper, lower in pairwise(chain):
        assert parent_id(found[lower]) == found[upper].context.span_id


async def test_an_error_is_on_both_spans_and_still_reaches_the_caller(
    echo: Echo, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    for method, call in (("Unary", echo.unary), ("Stream", echo.drain)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call("bad")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        found = await finished(spans[1], f"SERVER Echo/{method}", f"CLIENT Echo/{method}")
        server, client = found[f"SERVER Echo/{method}"], found[f"CLIENT Echo/{method}"]
        assert server.attributes is not None
        assert server.attributes["cortex.error.kind"] == "test.bad"
        assert server.status.description == "it is bad"
        assert client.status.description == "NOT_FOUND: it is bad"


async def test_streams_are_traced_at_the_servers_end_but_for_the_work_stream(
    echo: Echo, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    assert telemetry.sampled(await echo.drain("x"))
    assert telemetry.sampled(await echo.both())
    assert await echo.work() == ""
    known = ("SERVER Echo/Stream", "CLIENT Echo/Stream", "SERVER Echo/Both")
    assert set(await finished(spans[1], *known)) == set(known)


async def test_an_unsampled_caller_gets_contexts_but_no_spans(
    echo: Echo, spans: tuple[trace.Tracer, InMemorySpanExporter]
) -> None:
    token = contexts.attach(telemetry.context_of(VALID[:-1] + "0"))
    answer = await echo.unary("x")
    contexts.detach(token)
    assert telemetry.trace_id(answer) == TRACE
    assert not telemetry.sampled(answer)
    assert spans[1].get_finished_spans() == ()


async def test_a_cancelled_call_ends_at_both_ends(
    echo: Echo, spans: tuple[trace.Tracer, InMemorySpanExporter], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.2):
            await echo.unary("hang")
    watch = echo.stream("hang")
    async for _ in watch:
        watch.cancel()
        break
    async with asyncio.timeout(5):
        while len(spans[1].get_finished_spans()) < 4:
            await asyncio.sleep(0.005)  # the server learns of it in its own time
    assert all(span.status.is_ok or span.status.is_unset for span in spans[1].get_finished_spans())
    assert not caplog.records


async def test_a_hostile_header_starts_a_trace_of_our_own(echo: Echo) -> None:
    answer = await echo.drain("x", metadata=[("traceparent", "00-" + "0" * 32 + "-1-zz")])
    assert telemetry.sampled(answer)
