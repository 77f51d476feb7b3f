"""The collector: a real process that takes spans over OTLP, keeps them in a file and gives traces."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from cortex.batch.v1 import trace_service_pb2, trace_service_pb2_grpc
from services.collector.spans import MAX_ATTRIBUTES, MAX_TEXT, placed
from services.collector.store import Limits, Store
from services.common import telemetry
from services.common.grpc_errors import from_rpc_error

TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")


def span(number: int, trace_id: bytes = TRACE, **fields: Any) -> trace_pb2.Span:
    named: dict[str, Any] = {"name": "work", "start_time_unix_nano": number, "end_time_unix_nano": number + 1} | fields
    return trace_pb2.Span(trace_id=trace_id, span_id=number.to_bytes(8, "big"), **named)


def export(*spans: trace_pb2.Span, service: str = "cortex-test") -> otlp.ExportTraceServiceRequest:
    name = common_pb2.KeyValue(key="service.name", value=common_pb2.AnyValue(string_value=service))
    scopes = [trace_pb2.ScopeSpans(spans=spans)]
    resources = [trace_pb2.ResourceSpans(resource=resource_pb2.Resource(attributes=[name]), scope_spans=scopes)]
    return otlp.ExportTraceServiceRequest(resource_spans=resources)


# The process


class Collector:
    """A collector's process and where to reach it."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.socket = directory / "collector.sock"
        self.traces = directory / "traces.db"
        self._directory = directory
        self._environment = environment

    def start(self, before: Callable[[], None] | None = None, pass_fds: Sequence[int] = ()) -> None:
        variables = {"CORTEX_DATA_DIR": str(self._directory), "CORTEX_COLLECTOR_SOCKET": str(self.socket)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services.collector"],
            env=os.environ | variables | self._environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
            pass_fds=pass_fds,
        )
        assert "taking spans" in self.log_line()["message"]

    def log_line(self) -> dict[str, Any]:
        assert self.process.stderr is not None
        entry: dict[str, Any] = json.loads(self.process.stderr.readline())
        return entry

    def stop(self) -> tuple[int, str]:
        self.process.terminate()
        _, log = self.process.communicate(timeout=10)
        return self.process.returncode, log

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(f"unix:{self.socket}") as channel:
            yield channel

    async def send(self, *requests: otlp.ExportTraceServiceRequest) -> None:
        async with self.channel() as channel:
            stub = otlp_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated, untyped
            for request in requests:
                await stub.Export(request, timeout=10)

    async def trace(self, trace_id: bytes = TRACE) -> trace_service_pb2.GetTraceResponse:
        async with self.channel() as channel:
            stub: Any = trace_service_pb2_grpc.TraceServiceStub(channel)
            request = trace_service_pb2.GetTraceRequest(trace_id=trace_id.hex())
            response: trace_service_pb2.GetTraceResponse = await stub.GetTrace(request, timeout=10)
            return response


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    collector = Collector(tmp_path)
    collector.start()
    yield collector
    collector.process.kill()
    collector.process.communicate()


async def test_a_process_traced_by_the_kit_is_found_in_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"unix://{collector.socket}")
    kit = telemetry.start("cortex-scheduler")
    with kit.tracer.start_as_current_span("outer", attributes={"batches": 3, "sure": True}) as outer:
        kit.tracer.start_span("inner").end()
        kit.record("broken", telemetry.traceparent(outer), 5, 6, error="no answer")
    kit.shutdown()
    found = await collector.trace(outer.get_span_context().trace_id.to_bytes(16, "big"))
    assert [s.name for s in found.spans] == ["broken", "outer", "inner"]
    broken, first, inner = found.spans
    assert (first.service_name, first.parent_span_id) == ("cortex-scheduler", "")
    assert dict(first.attributes) == {"batches": "3", "sure": "true"}
    assert broken.parent_span_id == inner.parent_span_id == first.span_id
    assert (broken.error, broken.status_message) == (True, "no answer")
    assert first.start_unix_nano <= inner.start_unix_nano <= inner.end_unix_nano <= first.end_unix_nano


async def test_spans_outlive_a_killed_collector_and_are_kept_once(collector: Collector) -> None:
    await collector.send(export(span(1), span(2)))
    collector.process.kill()
    collector.process.communicate()
    collector.start()
    await collector.send(export(span(2), span(3)))
    assert [s.start_unix_nano for s in (await collector.trace()).spans] == [1, 2, 3]
    assert collector.stop() == (0, "")


@pytest.mark.parametrize("intact_bytes", [0, 4096])
async def test_a_broken_file_is_replaced(collector: Collector, intact_bytes: int) -> None:
    await collector.send(export(span(1)))
    collector.stop()
    content = collector.traces.read_bytes()
    collector.traces.write_bytes(content[:intact_bytes] + b"\xff" * (len(content) - intact_bytes))
    collector.start()
    await collector.send(export(span(2)))
    assert [s.start_unix_nano for s in (await collector.trace()).spans] == [2]
    code, log = collector.stop()
    assert code == 0
    assert "broken" in log


async def test_a_full_disk_loses_spans_and_nothing_else(tmp_path: Path) -> None:
    collector = Collector(tmp_path)
    collector.start(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    await collector.send(export(span(1)))
    large = [export(*(span(n, name="x" * 200) for n in range(m, m + 100))) for m in range(1000, 4000, 100)]
    await collector.send(*large)
    assert (await collector.trace()).spans[0].start_unix_nano == 1
    code, log = collector.stop()
    assert code == 0
    assert log.count("spans cannot be kept") == 1


async def test_it_is_healthy_and_says_what_is_wrong_with_a_request(collector: Collector) -> None:
    async with collector.channel() as channel:
        check: Any = health_pb2_grpc.HealthStub(channel)
        assert (await check.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    assert list((await collector.trace()).spans) == []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await collector.trace(b"short")
    assert from_rpc_error(raised.value).kind == "trace.invalid_id"


async def test_containers_reach_it_on_a_loopback_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    collector = Collector(tmp_path, CORTEX_COLLECTOR_PORT=str(port))
    collector.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = otlp_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated, untyped
        await stub.Export(export(span(1)), timeout=10)
    assert len((await collector.trace()).spans) == 1
    assert collector.stop()[0] == 0


def test_an_address_that_cannot_be_had_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {
            "CORTEX_DATA_DIR": str(tmp_path),
            "CORTEX_COLLECTOR_SOCKET": str(tmp_path / "collector.sock"),
            "CORTEX_COLLECTOR_PORT": str(port),
        }
        command = [sys.executable, "-P", "-m", "services.collector"]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"error: the collector cannot listen at 127.0.0.1:{port}" in done.stderr


def test_it_ends_when_the_system_is_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    collector = Collector(tmp_path, CORTEX_LIFELINE_FD=str(reading))
    collector.start(pass_fds=[reading])
    os.close(reading)
    os.close(writing)
    _, log = collector.process.communicate(timeout=10)
    assert "is gone" in log
    assert collector.process.returncode == 0


# What is kept


def test_a_hostile_span_is_cut_down() -> None:
    text = common_pb2.AnyValue(string_value="a" * 5_000)
    many = common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=[text] * 50))
    attributes = [common_pb2.KeyValue(key=f"key {n}", value=many if n % 2 else text) for n in range(100)]
    wild = span(
        1,
        name="\x1b[31mred\n" * 1000,
        parent_span_id=b"odd",
        start_time_unix_nano=2**64 - 1,
        end_time_unix_nano=0,
        attributes=attributes,
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message="\x07" * 5000),
    )
    impossible = [span(0), span(2, trace_id=b""), span(3, trace_id=bytes(16)), span(4, trace_id=b"x" * 64)]
    (kept,) = placed(export(wild, *impossible, service="s" * 10_000))
    assert kept.span.ByteSize() < MAX_ATTRIBUTES * (MAX_TEXT + 100) + 3000
    assert kept.span.name.isprintable()
    assert kept.span.status_message.isprintable()
    assert kept.span.parent_span_id == ""
    assert kept.span.start_unix_nano == kept.span.end_unix_nano == 2**63 - 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    limits = Limits(spans_per_trace=20, spans_per_kind=10, bytes_per_trace=20_000, bytes_in_all=50_000)
    store = Store(tmp_path / "traces.db", limits)
    yield store
    store.close()


def test_what_happens_again_and_again_leaves_room_for_the_rest(small: Store) -> None:
    small.add(placed(export(*(span(n, name="deliver") for n in range(1, 101)))))
    small.add(placed(export(span(500, name="on-job-complete"))))
    spans, dropped = small.trace(TRACE)
    assert [s.name for s in spans] == ["deliver"] * 10 + ["on-job-complete"]
    assert dropped == 90


def test_a_trace_is_bounded_in_spans_and_in_bytes(small: Store) -> None:
    small.add(placed(export(*(span(n, name=f"name {n}") for n in range(1, 101)))))
    assert (len(small.trace(TRACE)[0]), small.trace(TRACE)[1]) == (20, 80)
    fat = [common_pb2.KeyValue(key=str(n), value=common_pb2.AnyValue(string_value="x" * 1000)) for n in range(5)]
    other = bytes([7] * 16)
    small.add(placed(export(*(span(n, trace_id=other, attributes=fat) for n in range(1, 10)))))
    assert len(small.trace(other)[0]) == 3


def test_the_traces_that_were_silent_for_longest_go_first(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1, 1000))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    fat = [common_pb2.KeyValue(key="k", value=common_pb2.AnyValue(string_value="x" * 1000))]
    traces = [bytes([n] * 16) for n in range(1, 41)]
    for number, trace_id in enumerate(traces):
        small.add(placed(export(span(1, trace_id=trace_id, attributes=fat))))
        small.add(placed(export(span(number + 2, trace_id=traces[0]))))  # the first one is never silent for long
        if number == 15:
            small.close()  # the size is known again after a restart
    kept = [bool(small.trace(trace_id)[0]) for trace_id in traces]
    assert kept[0]
    assert kept[1:] == sorted(kept[1:])
    assert 25 <= sum(kept) < 40


async def test_many_senders_at_once_are_all_served(collector: Collector) -> None:
    requests = [export(*(span(1000 * m + n, name=f"kind {m}") for n in range(1, 101))) for m in range(20)]
    async with collector.channel() as channel:
        stub = otlp_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated, untyped
        async with asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(send_one(stub, request))
    assert len((await collector.trace()).spans) == 2000


async def send_one(stub: Any, request: otlp.ExportTraceServiceRequest) -> None:
    await stub.Export(request, timeout=10)
