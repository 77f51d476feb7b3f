"""The dequeuer's life with its scheduler: streams that break, schedulers that return, and the ways to end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from cortex.batch.v1 import worker_service_pb2 as pb
from cortex.batch.v1.worker_spec_pb2 import Container, LocalRuntime
from services.common.errors import CortexError
from services.common.exit_codes import ORPHANED
from services.dequeuer.ports import PodListener
from tests.integration.dequeuer_kit import PATIENCE_S, Answer, Asked, InProcessPod, Kit, surroundings


class Gate:
    """A container that answers when the test lets it."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, asked: Asked) -> Answer:
        await self.opened.wait()
        return 200


class TestBrokenStreams:
    async def test_a_scheduler_that_returns_finds_the_same_leases_and_gets_their_outcomes(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=2) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(4))
            await kit.container.until(lambda: kit.container.in_work == 2)
            await kit.scheduler.close()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.hellos) == 2)
            held = [(lease.batch_index, lease.epoch, lease.attempt) for lease in kit.scheduler.hellos[1].held]
            assert sorted(held) == [(0, 1000, 1), (1, 1001, 1), (2, 1002, 1), (3, 1003, 1)]
            gate.opened.set()
            await kit.scheduler.until(lambda: kit.scheduler.done == [0, 1, 2, 3])
            assert sorted(kit.container.batches) == [0, 1, 2, 3]

    async def test_batches_go_on_while_there_is_no_scheduler(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=1) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(5))
            await kit.container.until(lambda: kit.container.in_work == 1)
            await kit.scheduler.close()
            gate.opened.set()
            await kit.container.until(lambda: len(kit.container.asked) == 5)
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: kit.scheduler.done == [0, 1, 2, 3, 4])

    async def test_an_outcome_is_sent_again_until_it_is_recorded(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.scheduler.records = False
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1, 2)
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 2)
            await kit.scheduler.close()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 4)
            assert {lease.epoch for lease in kit.scheduler.hellos[1].held} == {1001, 1002}
            kit.scheduler.say(recorded_epochs=[1001])
            kit.scheduler.say(revoked_epochs=[1])
            kit.scheduler.lease(3)  # answered behind the word that 1 is recorded
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 5)
            await kit.scheduler.close()
            kit.scheduler.results.clear()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: kit.scheduler.done == [2, 3])

    async def test_a_returned_lease_counts_as_held_until_the_scheduler_has_read_of_it(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=1) as kit:
            kit.scheduler.heartbeat_s = 0.1
            kit.scheduler.answers_heartbeats = False
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.container.until(lambda: kit.container.in_work == 1)
            await kit.scheduler.close()
            kit.pod.die()
            kit.scheduler.answers_heartbeats = True
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: kit.scheduler.returned)
            assert [lease.epoch for lease in kit.scheduler.hellos[-1].held] == [1001]
            assert kit.scheduler.returned[0].lost_in_container
            heartbeats = kit.scheduler.heartbeats
            await kit.scheduler.until(lambda: kit.scheduler.heartbeats >= heartbeats + 2)  # the first has its answer
            await kit.scheduler.close()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.hellos) >= 3)
            assert list(kit.scheduler.hellos[-1].held) == []

    async def test_leases_that_are_not_honoured_are_dropped(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=1) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1, 2, 3)
            await kit.container.until(lambda: kit.container.in_work == 1)
            await kit.scheduler.close()
            kit.scheduler.dropped = [1001, 1002]
            kit.scheduler.health.clear()
            await kit.scheduler.open()
            await kit.scheduler.until_ready()  # said behind the welcome
            gate.opened.set()
            await kit.scheduler.until(lambda: kit.scheduler.done == [3])
            assert kit.container.batches == [1, 3]

    async def test_a_scheduler_that_falls_silent_is_connected_to_anew(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.scheduler.heartbeat_s = 0.1
            kit.scheduler.answers_heartbeats = False
            kit.start()
            await kit.scheduler.until(lambda: len(kit.scheduler.hellos) >= 2)

    async def test_the_newest_token_opens_the_next_stream(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.start()
            await kit.scheduler.until_ready()
            assert kit.scheduler.hellos[0].token == "first"
            assert kit.scheduler.hellos[0].worker_id == "w1"
            assert kit.scheduler.hellos[0].pid == os.getpid()
            kit.scheduler.say(token="second")
            kit.scheduler.lease(1)
            await kit.scheduler.until(lambda: kit.scheduler.results)
            await kit.scheduler.close()
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.hellos) == 2)
            assert kit.scheduler.hellos[1].token == "second"

    async def test_health_and_credit_are_told_again_on_a_new_stream(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.start()
            await kit.scheduler.until_ready()
            await kit.scheduler.close()
            kit.scheduler.health.clear()
            kit.scheduler.credits.clear()
            await kit.scheduler.open()
            await kit.scheduler.until_ready()
            assert kit.scheduler.credits[-1].batches > 0


class TestEnds:
    async def test_a_shutdown_lets_the_container_finish_and_hands_the_rest_back(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=2) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(5))
            await kit.container.until(lambda: kit.container.in_work == 2)
            kit.scheduler.say(shutdown=pb.Shutdown(reason="enough", grace_seconds=60))
            await kit.scheduler.until(lambda: len(kit.scheduler.returned) == 3)
            assert kit.scheduler.health[-1].phase == pb.Health.PHASE_TERMINATING
            assert not any(lease.lost_in_container for lease in kit.scheduler.returned)
            gate.opened.set()
            assert await kit.ended() == 0
            assert kit.scheduler.done == [0, 1]
            assert kit.scheduler.goodbyes == ["told to end: enough"]
            assert kit.pod.stopped_with is not None

    async def test_a_shutdown_without_grace_hands_everything_back(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=2) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(5))
            await kit.container.until(lambda: kit.container.in_work == 2)
            kit.scheduler.say(shutdown=pb.Shutdown(reason="stopped", grace_seconds=0))
            assert await kit.ended() == 0
            assert sorted(lease.batch_index for lease in kit.scheduler.returned) == [0, 1, 2, 3, 4]
            assert not any(lease.lost_in_container for lease in kit.scheduler.returned)
            assert kit.scheduler.results == []
            assert kit.scheduler.goodbyes == ["told to end: stopped"]

    async def test_a_signal_shortens_a_long_shutdown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.dequeuer.endings.TERM_DRAIN_S", 0.05)
        async with surroundings(tmp_path) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.container.until(lambda: kit.container.in_work == 1)
            kit.scheduler.say(shutdown=pb.Shutdown(reason="enough", grace_seconds=60))
            await kit.scheduler.until(lambda: kit.scheduler.health[-1].phase == pb.Health.PHASE_TERMINATING)
            kit.stop.set()
            assert await kit.ended() == 0
            assert [lease.batch_index for lease in kit.scheduler.returned] == [1]

    async def test_a_signal_lets_on_job_complete_be_answered(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            gate = kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.say(job_complete=pb.JobComplete())
            await kit.container.until(lambda: kit.container.in_work == 1)
            kit.stop.set()
            await kit.scheduler.until(lambda: kit.scheduler.health[-1].phase == pb.Health.PHASE_TERMINATING)
            gate.opened.set()
            assert await kit.ended() == 0
            assert kit.scheduler.completions == [pb.CompletionResult(http_status=200)]

    @pytest.mark.parametrize("refusal", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND])
    async def test_a_worker_that_is_refused_ends(self, tmp_path: Path, refusal: grpc.StatusCode) -> None:
        async with surroundings(tmp_path) as kit:
            kit.scheduler.refusal = refusal
            kit.start()
            assert await kit.ended() == 0
            assert kit.pod.stopped_with is not None

    async def test_a_job_that_ended_while_the_scheduler_was_away_ends_the_worker(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.container.until(lambda: kit.container.in_work == 1)
            await kit.scheduler.close()
            kit.scheduler.refusal = grpc.StatusCode.NOT_FOUND
            await kit.scheduler.open()
            assert await kit.ended() == 0

    async def test_without_a_scheduler_the_worker_ends_after_a_while(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, orphan_seconds=0.3) as kit:
            kit.start()
            await kit.scheduler.until_ready()
            await kit.scheduler.close()
            assert await kit.ended() == ORPHANED
            assert kit.pod.stopped_with is not None

    async def test_when_the_system_is_gone_everything_ends_at_once(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.answer = Gate()
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.container.until(lambda: kit.container.in_work == 1)
            kit.stop.at_once = True
            kit.stop.set()
            assert await kit.ended() == 1
            assert kit.pod.killed
            assert kit.pod.stopped_with is None

    async def test_containers_that_cannot_be_started_end_the_worker_with_the_reason(self, tmp_path: Path) -> None:
        class BrokenPod(InProcessPod):
            async def start(self, listener: PodListener) -> None:
                raise CortexError("worker.cannot_start", "the directory is not there")

        async with surroundings(tmp_path) as kit:
            kit.start(BrokenPod(kit.container))
            assert await kit.ended() == 1
            assert kit.scheduler.goodbyes == ["the directory is not there"]


@asynccontextmanager
async def process(kit: Kit, directory: Path, **options: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The real dequeuer process, for containers that run elsewhere."""
    file = directory / "worker.json"
    file.write_text(json_format.MessageToJson(kit.spec))
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "CORTEX_"))}
    variables |= {"CORTEX_WORKER_SPEC": str(file)} | {name: str(value) for name, value in options.items()}
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "services.dequeuer",
        env=variables,
        pass_fds=list(options.values()),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


class TestProcess:
    async def test_sigterm_finishes_or_hands_back_what_is_held(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=2) as kit, process(kit, tmp_path) as running:
            gate = kit.container.answer = Gate()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(5))
            await kit.container.until(lambda: kit.container.in_work == 2)
            running.send_signal(signal.SIGTERM)
            await kit.scheduler.until(lambda: len(kit.scheduler.returned) == 3)
            gate.opened.set()
            async with asyncio.timeout(PATIENCE_S):
                assert await running.wait() == 0
            assert kit.scheduler.done == [0, 1]
            assert kit.scheduler.goodbyes == ["told to end by a signal"]

    async def test_a_broken_lifeline_ends_it_at_once(self, tmp_path: Path) -> None:
        read, write = os.pipe()
        async with surroundings(tmp_path) as kit, process(kit, tmp_path, CORTEX_LIFELINE_FD=read) as running:
            os.close(read)
            await kit.scheduler.until_ready()
            os.close(write)
            async with asyncio.timeout(PATIENCE_S):
                assert await running.wait() == 1

    async def test_its_memory_is_bounded(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path, concurrency=8) as kit, process(kit, tmp_path) as running:
            kit.scheduler.relets = True
            await kit.scheduler.until_ready()
            for start in range(0, 10_000, 250):
                kit.scheduler.lease(*range(start, start + 250))
            await kit.scheduler.until(lambda: len(set(kit.scheduler.done)) == 10_000)
            status = Path(f"/proc/{running.pid}/status").read_text()
            peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            assert peak_kib < 90 * 1024

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (None, "the environment variable CORTEX_WORKER_SPEC is not set"),
            ("{", "cannot be read"),
            ('{"jobId": "1"}', "has no worker_id"),
        ],
    )
    async def test_a_specification_without_sense_is_one_clear_sentence(
        self, tmp_path: Path, text: str | None, says: str
    ) -> None:
        file = tmp_path / "worker.json"
        file.write_text(text or "")
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "services.dequeuer",
            env=os.environ | {"CORTEX_WORKER_SPEC": str(file) if text else ""},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await running.communicate()
        assert running.returncode == 1
        lines = said.decode().splitlines()
        assert lines[0].startswith("error: ")
        assert says in said.decode()
        assert "Traceback" not in said.decode()


SERVER = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if self.rfile.read(int(self.headers["Content-Length"])) == b"[666]":
            os._exit(3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


async def test_a_worker_with_a_real_container_outlives_its_crash(tmp_path: Path) -> None:
    async with surroundings(tmp_path, concurrency=2) as kit:
        kit.container.close()  # a program of its own takes the port
        program = Container(name="api", command=[sys.executable, "-c", SERVER])
        program.env.add(name="PORT", value=str(kit.spec.port))
        del kit.spec.containers[:]
        kit.spec.containers.append(program)
        directory = tmp_path / "worker"
        for name in ("spec", "client", "mnt"):
            (directory / name).mkdir(parents=True)
        kit.spec.local.MergeFrom(
            LocalRuntime(
                directory=str(directory),
                log_directory=str(tmp_path / "logs"),
                stop_grace_seconds=5,
                working_directory=str(tmp_path),
            )
        )
        async with process(kit, tmp_path) as running:
            await kit.scheduler.until_ready()
            kit.scheduler.lease(*range(100))
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 100)
            kit.scheduler.lease(666)
            await kit.scheduler.until(lambda: kit.scheduler.returned)
            assert kit.scheduler.returned[0].lost_in_container
            kit.scheduler.health.clear()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(100)
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 101)
            kit.scheduler.say(shutdown=pb.Shutdown(reason="the job is over"))
            async with asyncio.timeout(PATIENCE_S):
                assert await running.wait() == 0
            assert kit.scheduler.goodbyes == ["told to end: the job is over"]
