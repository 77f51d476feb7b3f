"""The dequeuer's way of a batch: from the work stream into the container, and its outcome back."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cortex.batch.v1 import worker_service_pb2 as pb
from cortex.batch.v1.worker_spec_pb2 import HttpGet, Probe
from services.common.telemetry import Telemetry, start
from services.dequeuer import completion
from services.dequeuer.external_pod import ExternalPod
from tests.integration.dequeuer_kit import Answer, Asked, surroundings

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


class Gate:
    """A container that answers when the test lets it."""

    def __init__(self, status: Answer = 200) -> None:
        self.opened = asyncio.Event()
        self.status = status

    async def __call__(self, asked: Asked) -> Answer:
        await self.opened.wait()
        return self.status


async def test_every_batch_is_delivered_and_its_outcome_reported_once(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=4) as kit:
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(500))
        await kit.scheduler.until(lambda: len(kit.scheduler.results) >= 500)
        assert kit.scheduler.done == list(range(500))
        assert sorted(kit.container.batches) == list(range(500))
        assert {result.outcome for result in kit.scheduler.results} == {pb.Result.OUTCOME_SUCCEEDED}
        assert all(result.epoch == 1000 + result.batch_index for result in kit.scheduler.results)
        assert all(0 < result.duration_seconds < 5 for result in kit.scheduler.results)
        assert kit.pod.progress == 500


async def test_outcomes_travel_together(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=4) as kit:
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(1000))
        await kit.scheduler.until(lambda: len(kit.scheduler.results) >= 1000)
        assert kit.scheduler.result_messages < 200


async def test_the_container_gets_what_the_contract_says(tmp_path: Path) -> None:
    async with surroundings(tmp_path) as kit:
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(7, traceparent=UNSAMPLED)
        await kit.scheduler.until(lambda: kit.scheduler.results)
        (asked,) = kit.container.asked
        assert asked.path == "/"
        assert asked.body == b"[7]"
        assert asked.headers["content-type"] == "application/json"
        assert asked.headers["x-cortex-job-id"] == "00ff00ff00ff00ff"
        assert asked.headers["host"] == f"localhost:{kit.container.port}"
        assert asked.headers["traceparent"] == UNSAMPLED


async def test_no_more_batches_are_in_the_container_than_it_takes_at_once(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=3) as kit:
        gate = kit.container.answer = Gate()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(10))
        await kit.container.until(lambda: kit.container.in_work == 3)
        gate.opened.set()
        await kit.scheduler.until(lambda: len(kit.scheduler.results) == 10)
        assert kit.container.most_in_work == 3


@pytest.mark.parametrize("status", [201, 204, 302, 404, 500])
async def test_only_200_is_a_success(tmp_path: Path, status: int) -> None:
    async with surroundings(tmp_path) as kit:
        gate = kit.container.answer = Gate(status)
        gate.opened.set()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(1)
        await kit.scheduler.until(lambda: kit.scheduler.results)
        (result,) = kit.scheduler.results
        assert result.outcome == pb.Result.OUTCOME_FAILED
        assert result.http_status == status
        assert result.error.startswith(f"the container answered {status}")
        if status == 500:
            assert result.error == "the container answered 500: words"


async def test_an_attempt_over_its_time_fails(tmp_path: Path) -> None:
    async with surroundings(tmp_path, batch_timeout_seconds=0.05) as kit:
        kit.container.answer = Gate()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(1)
        await kit.scheduler.until(lambda: kit.scheduler.results)
        (result,) = kit.scheduler.results
        assert (result.outcome, result.http_status) == (pb.Result.OUTCOME_FAILED, 0)
        assert result.error == "no answer in 0.05 s (batch_timeout)"


async def test_a_broken_connection_fails_the_attempt_when_the_container_lives_on(tmp_path: Path) -> None:
    async with surroundings(tmp_path) as kit:
        gate = kit.container.answer = Gate(None)
        gate.opened.set()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(1)
        await kit.scheduler.until(lambda: kit.scheduler.results)
        (result,) = kit.scheduler.results
        assert result.error == "the container closed the connection before it answered"
        assert len(kit.container.asked) == 1


async def test_a_container_that_dies_gives_its_leases_back(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=2) as kit:
        kit.container.answer = Gate()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(5))
        await kit.container.until(lambda: kit.container.in_work == 2)
        kit.pod.die()
        await kit.scheduler.until(lambda: len(kit.scheduler.returned) == 5)
        lost = {lease.batch_index: lease.lost_in_container for lease in kit.scheduler.returned}
        assert lost == {0: True, 1: True, 2: False, 3: False, 4: False}
        assert kit.scheduler.results == []
        assert kit.scheduler.health[-1].phase == pb.Health.PHASE_BACKOFF
        assert kit.scheduler.health[-1].reason == "exited with code 3"
        assert kit.scheduler.health[-1].failed_starts == 1
        assert kit.scheduler.credits[-1].batches == 0

        kit.container.answer = gate = Gate()
        gate.opened.set()
        await kit.container.open()
        kit.pod.revive()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(0)
        await kit.scheduler.until(lambda: kit.scheduler.done == [0])


async def test_a_port_that_closes_gives_back_what_waits_and_comes_back(tmp_path: Path) -> None:
    async with surroundings(tmp_path) as kit:
        kit.start()
        await kit.scheduler.until_ready()
        kit.container.close()
        kit.scheduler.lease(1)
        await kit.scheduler.until(lambda: kit.scheduler.returned)
        assert not kit.scheduler.returned[0].lost_in_container
        assert kit.scheduler.health[-1].phase == pb.Health.PHASE_NOT_READY
        await kit.container.open()
        await kit.scheduler.until_ready()


async def test_nothing_is_delivered_before_the_port_is_open(tmp_path: Path) -> None:
    async with surroundings(tmp_path) as kit:
        kit.container.close()
        kit.start(ExternalPod(kit.spec))
        await kit.scheduler.until(lambda: kit.scheduler.health)
        assert kit.scheduler.health[-1].phase in (pb.Health.PHASE_CREATING, pb.Health.PHASE_NOT_READY)
        assert all(credit.batches == 0 for credit in kit.scheduler.credits)
        kit.scheduler.lease(1)
        await kit.scheduler.until(lambda: kit.scheduler.returned)
        await kit.container.open()
        await kit.scheduler.until_ready()
        assert kit.scheduler.credits[-1].batches > 0


async def test_a_failing_readiness_probe_pauses_delivery(tmp_path: Path) -> None:
    probe = Probe(http_get=HttpGet(path="/healthz"), period_seconds=0.02, success_threshold=1, failure_threshold=1)
    async with surroundings(tmp_path) as kit:
        probe.http_get.port = kit.container.port
        kit.spec.containers[0].readiness_probe.CopyFrom(probe)
        gate = kit.container.answer = Gate()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(4))
        await kit.container.until(lambda: kit.container.in_work == 2)
        kit.container.ready_status = 503
        await kit.scheduler.until(lambda: len(kit.scheduler.returned) == 2)
        assert kit.scheduler.health[-1].phase == pb.Health.PHASE_NOT_READY
        assert kit.scheduler.health[-1].reason == (
            f"container api: GET /healthz on port {kit.container.port} answered 503"
        )
        gate.opened.set()  # what is in the container goes on
        await kit.scheduler.until(lambda: kit.scheduler.done == [0, 1])
        kit.container.ready_status = 204
        await kit.scheduler.until_ready()
        kit.scheduler.lease(2, 3)
        await kit.scheduler.until(lambda: kit.scheduler.done == [0, 1, 2, 3])


async def test_a_failing_liveness_probe_has_its_container_started_again(tmp_path: Path) -> None:
    async with surroundings(tmp_path) as kit:
        probe = Probe(period_seconds=0.01, failure_threshold=2)
        probe.exec.command.append("7")
        kit.spec.containers[0].liveness_probe.CopyFrom(probe)
        kit.start()
        await kit.scheduler.until_ready()
        while not kit.pod.restarts:
            await asyncio.sleep(0.005)
        assert kit.pod.restarts == ["its liveness probe fails: its command exited with code 7"]


async def test_what_is_revoked_comes_back_unless_it_is_in_the_container(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=1) as kit:
        gate = kit.container.answer = Gate()
        kit.start()
        await kit.scheduler.until_ready()
        kit.scheduler.lease(*range(4))
        await kit.container.until(lambda: kit.container.in_work == 1)
        kit.scheduler.say(revoked_epochs=[1000, 1002, 1003])
        await kit.scheduler.until(lambda: len(kit.scheduler.returned) == 2)
        gate.opened.set()
        await kit.scheduler.until(lambda: kit.scheduler.done == [0, 1])
        assert [(lease.batch_index, lease.lost_in_container) for lease in kit.scheduler.returned] == [
            (2, False),
            (3, False),
        ]


async def test_credit_grows_for_fast_batches(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=2) as kit:
        kit.start()
        await kit.scheduler.until_ready()
        assert kit.scheduler.credits[-1] == pb.Credit(batches=6, bytes=8 * 1024 * 1024)
        kit.scheduler.lease(*range(300))
        await kit.scheduler.until(lambda: len(kit.scheduler.results) == 300)
        assert kit.scheduler.credits[-1].batches > 6


class SerialServer:
    """Serves one connection at a time, to its end, as the plainest servers do."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self.paths: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._turn:
            while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
                self.paths.append(head.split()[1].decode())
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_a_server_of_one_thread_is_not_kept_from_its_other_connections(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=2) as kit:
        kit.container.close()
        plain = SerialServer()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await plain.serve(reader, writer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", kit.container.port):
            kit.start(ExternalPod(kit.spec))
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1, 2)  # on two connections, of which the server takes one
            await kit.scheduler.until(lambda: kit.scheduler.done == [1, 2])
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            assert plain.paths == ["/", "/", "/on-job-complete"]
            kit.scheduler.say(shutdown=pb.Shutdown(reason="done"))
            assert await kit.ended() == 0


class TestCompletion:
    async def test_it_is_posted_once_when_the_container_is_idle(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.container.until(lambda: kit.container.in_work == 1)
            kit.scheduler.say(job_complete=pb.JobComplete(traceparent=UNSAMPLED))
            kit.scheduler.say(job_complete=pb.JobComplete(traceparent=UNSAMPLED))
            kit.scheduler.say(revoked_epochs=[5])
            await kit.scheduler.until(lambda: kit.scheduler.credits)
            assert len(kit.container.asked) == 1
            gate.opened.set()
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            assert kit.scheduler.completions == [pb.CompletionResult(http_status=200)]
            (asked,) = kit.container.asked[1:]
            assert asked.path == "/on-job-complete"
            assert asked.body == b'{"message":"job_complete"}'
            assert asked.headers["content-type"] == "application/json"
            assert asked.headers["x-cortex-job-id"] == "00ff00ff00ff00ff"
            assert asked.headers["traceparent"] == UNSAMPLED

    async def test_its_answer_is_kept_for_a_scheduler_that_comes_back(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            await kit.scheduler.close()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.completions) == 2)
            assert kit.scheduler.hellos[-1].completing
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.scheduler.until(lambda: len(kit.scheduler.completions) == 3)
            assert len(kit.container.asked) == 1

    @pytest.mark.parametrize(("status", "error"), [(404, ""), (500, "the container answered 500: words")])
    async def test_404_is_fine_and_another_failure_is_told(self, tmp_path: Path, status: int, error: str) -> None:
        async with surroundings(tmp_path) as kit:
            gate = kit.container.answer = Gate(status)
            gate.opened.set()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            assert kit.scheduler.completions == [pb.CompletionResult(http_status=status, error=error)]

    async def test_a_container_that_dies_of_it_is_told_as_the_answer(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.container.until(lambda: kit.container.in_work == 1)
            kit.pod.die()
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            assert kit.scheduler.completions == [pb.CompletionResult(error="container api exited with code 3")]

    async def test_no_answer_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(completion, "ANSWER_S", 0.05)
        async with surroundings(tmp_path) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.scheduler.until(lambda: kit.scheduler.completions)
            assert kit.scheduler.completions == [pb.CompletionResult(error="no answer in 0.05 s")]


class TestSpans:
    @pytest.fixture
    def exporter(self) -> InMemorySpanExporter:
        return InMemorySpanExporter()

    @pytest.fixture
    def telemetry(self, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Telemetry:
        make = TracerProvider.__init__

        def with_exporter(provider: TracerProvider, *arguments: object, **options: object) -> None:
            make(provider, *arguments, **options)  # type: ignore[arg-type]  # handed on as they are
            provider.add_span_processor(SimpleSpanProcessor(exporter))

        monkeypatch.setattr(TracerProvider, "__init__", with_exporter)
        return start("cortex-dequeuer")

    async def one_batch(
        self, directory: Path, telemetry: Telemetry, exporter: InMemorySpanExporter, traceparent: str, status: int
    ) -> tuple[str, tuple[ReadableSpan, ...]]:
        async with surroundings(directory) as kit:
            gate = kit.container.answer = Gate(status)
            gate.opened.set()
            kit.start(telemetry=telemetry)
            await kit.scheduler.until_ready()
            kit.scheduler.lease(3, traceparent=traceparent)
            await kit.scheduler.until(lambda: kit.scheduler.results)
            return kit.container.asked[0].headers["traceparent"], exporter.get_finished_spans()

    async def test_a_sampled_batch_has_a_span_that_the_container_is_told_of(
        self, tmp_path: Path, telemetry: Telemetry, exporter: InMemorySpanExporter
    ) -> None:
        told, (span,) = await self.one_batch(tmp_path, telemetry, exporter, SAMPLED, 200)
        assert span.name == "deliver batch"
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
        assert told == f"00-{TRACE}-{span.context.span_id:016x}-01"
        assert dict(span.attributes or {}) == {
            "cortex.job_id": "00ff00ff00ff00ff",
            "cortex.worker": 0,
            "cortex.batch": 3,
            "cortex.attempt": 1,
            "http.response.status_code": 200,
        }

    async def test_an_unsampled_batch_has_none(
        self, tmp_path: Path, telemetry: Telemetry, exporter: InMemorySpanExporter
    ) -> None:
        told, spans = await self.one_batch(tmp_path, telemetry, exporter, UNSAMPLED, 200)
        assert told == UNSAMPLED
        assert spans == ()

    async def test_a_failed_attempt_has_one_even_when_unsampled(
        self, tmp_path: Path, telemetry: Telemetry, exporter: InMemorySpanExporter
    ) -> None:
        _, (span,) = await self.one_batch(tmp_path, telemetry, exporter, UNSAMPLED, 500)
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "the container answered 500: words"
