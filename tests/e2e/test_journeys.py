"""Whole journeys through the real system: what a user sees when things go well, and when they do not."""

import json
import socket
from pathlib import Path

import pytest
import urllib3

from cortex.exceptions import CortexException
from examples.digits.demo import orphans
from tests.e2e.system import System, system
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

RAW_ITEMS = '[12345678901234567890, 1.0, 1e400, {"b": 1, "a": 2, "b": 3}, "\\u00e9\\ud83d", -0]'


def test_a_job_from_deployment_to_trace(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        job_id = running.submit([{"n": number} for number in range(20)], batch_size=3, workers=2, config={"model": "m"})
        answer = running.wait(job_id)
        job = answer["job_status"]
        assert job["status"] == "succeeded", job
        assert job["total_batch_count"] == 7
        assert "worker_counts" not in job
        assert running.done() == {json.dumps({"n": number}): 1 for number in range(20)}
        (completion,) = running.completions()
        assert completion["body"] == {"message": "job_complete"}
        assert completion["job"] == job_id
        assert completion["spec"]["config"] == {"model": "m"}
        assert completion["spec"]["total_batch_count"] == 7

        def whole_trace() -> list[dict[str, object]]:
            spans: list[dict[str, object]] = running.client.job_trace("hello", job_id)["spans"]
            # Each service sends its own in its own time: the story is whole when no span's cause is missing.
            there = {"job", "start worker", "on-job-complete"} <= {span["name"] for span in spans}
            return spans if there and len(spans) >= 7 * 3 and not orphans(spans) else []

        spans = wait_for("the whole trace", whole_trace)
        assert {span["service"] for span in spans} == {"cortex-gateway", "cortex-scheduler", "cortex-dequeuer"}
        by_id = {span["span_id"]: span for span in spans}
        delivered = next(span for span in spans if str(span["name"]).startswith("deliver"))
        chain = []
        hop: dict[str, object] | None = delivered
        while hop is not None:
            chain.append((hop["service"], hop["name"]))
            hop = by_id.get(hop["parent_span_id"])
        assert [service for service, _ in chain] == [
            "cortex-dequeuer",
            "cortex-scheduler",
            "cortex-scheduler",
            "cortex-scheduler",
            "cortex-gateway",
            "cortex-gateway",
        ], chain
        (file,) = [file for file in running.notes.iterdir() if file.name != "COMPLETED"][:1]
        trace_id = running.client.job_trace("hello", job_id)["trace_id"]
        assert json.loads(file.read_text().splitlines()[0])["traceparent"].split("-")[1] == trace_id
        logged = list(running.client.job_logs("hello", job_id))
        assert any(line["message"].startswith("serving ") for line in logged)
        assert {line["cortex.labels"]["jobID"] for line in logged} == {job_id}


def test_bytes_of_items_and_config_reach_the_container_unchanged(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        echo = (
            "import http.server,os\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            " def do_POST(self):\n"
            "  body=self.rfile.read(int(self.headers['Content-Length']))\n"
            "  open(os.environ['NOTES']+'/raw','ab').write(body+b'\\n')\n"
            "  self.send_response(200); self.end_headers()\n"
            "http.server.HTTPServer(('127.0.0.1',int(os.environ['CORTEX_PORT'])),H).serve_forever()\n"
        )
        running.deploy(
            container={"command": ["python3", "-c", echo], "env": {"NOTES": str(running.notes), "P": "$(CORTEX_PORT)"}}
        )
        config = '{"k": 1.50, "k": 1e400}'
        body = f'{{"workers": 1, "config": {config}, "item_list": {{"batch_size": 6, "items": {RAW_ITEMS}}}}}'
        reply = urllib3.request("POST", f"{running.url}/batch/hello", body=body.encode())
        assert reply.status == 200, reply.data
        assert config.encode() in reply.data
        job_id = reply.json()["job_id"]
        assert running.wait(job_id)["job_status"]["status"] == "succeeded"
        expected = b'[12345678901234567890,1.0,1e400,{"b": 1, "a": 2, "b": 3},"\\u00e9\\ud83d",-0]'
        assert (running.notes / "raw").read_bytes().splitlines()[0] == expected


def test_failing_batches_are_counted_and_explained(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        answer = running.wait(running.submit(["fail", "close", "hang", 1, 2], batch_timeout=1))
        job = answer["job_status"]
        assert job["status"] == "completed_with_failures"
        assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": 2, "failed": 3}
        assert answer["metrics"]["failed"] == 3
        assert len(running.completions()) == 1


def test_a_batch_that_kills_every_worker_is_given_up_and_the_others_succeed(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        answer = running.wait(running.submit([1, "exit", 2, 3]))
        job = answer["job_status"]
        assert job["status"] == "completed_with_failures", job
        assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": 3, "failed": 1}
        assert answer["metrics"]["failed"] == 0, "a lost worker is no failed attempt"


def test_a_container_that_cannot_start_ends_the_job_with_its_last_words(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(env={"START": "exit"})
        job = running.wait(running.submit([1]))["job_status"]
        assert job["status"] == "worker_error"
        assert "cannot load the model" in job["reason"]
        assert job["batch_counts"]["pending"] == 1


def test_a_command_that_does_not_exist_is_said_plainly(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(container={"command": ["no-such-program", "$(CORTEX_PORT)"]})
        job_id = running.submit([1])
        job = running.wait(job_id)["job_status"]
        assert job["status"] == "worker_error"
        assert job["reason"].startswith("worker 0: container `api` cannot be started: its command `no-such-program` ")
        told = [line["message"] for line in running.client.job_logs("hello", job_id)]
        assert len([line for line in told if line.startswith("cortex: ")]) == 1, "it was tried once"


def test_a_container_that_never_gets_ready_ends_the_job_at_the_deadline(tmp_path: Path) -> None:
    with system(tmp_path, {"CORTEX_STARTUP_DEADLINE": "2"}) as running:
        running.deploy(env={"READY": "no"}, container={"readiness_probe": {"http_get": {"port": 8080, "path": "/"}}})
        job = running.wait(running.submit([1]))["job_status"]
        assert job["status"] == "worker_error"
        assert "ready" in job["reason"]
        assert running.done() == {}


def test_a_container_that_eats_its_memory_is_told_apart(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(container={"compute": {"mem": "100Mi"}})
        answer = running.wait(running.submit(["eat"] * 2))
        job = answer["job_status"]
        assert job["status"] == "worker_oom", job
        assert "memory" in job["reason"]


def test_workers_that_insist_on_one_port_run_side_by_side(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with system(tmp_path) as running:
        running.deploy(env={"PORT": str(port), "WHERE": "hard-coded"}, port=port)
        job_id = running.submit([{"n": n, "sleep": 0.2} for n in range(12)], workers=3)
        wait_for("three containers on one port", lambda: len(running.containers()) == 3)
        assert running.wait(job_id)["job_status"]["status"] == "succeeded"
        wrote = [file for file in running.notes.iterdir() if file.name != "COMPLETED"]
        assert len(wrote) >= 2, "several workers took part"


def test_stopping_and_timing_out(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        stopped, timed_out = running.submit(["hang"]), running.submit(["hang"], timeout=1)
        running.client.stop_job("hello", stopped)
        assert running.client.get_job("hello", stopped)["job_status"]["status"] == "stopped"
        with pytest.raises(CortexException) as error:
            running.client.stop_job("hello", stopped)
        assert error.value.kind == "job.job_is_not_in_progress"
        assert running.wait(timed_out)["job_status"]["status"] == "timed_out"
        wait_for("no container is left", lambda: not running.containers())
        assert not running.completions()


def test_deleting_an_api_stops_its_jobs_and_they_stay_known(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        job_id = running.submit(["hang"])
        running.client.delete("hello")
        assert running.client.get_job("hello", job_id)["job_status"]["status"] == "stopped"
        with pytest.raises(CortexException) as error:
            running.submit([1])
        assert error.value.kind == "resources.api_not_deployed"
        running.deploy()
        assert running.wait(running.submit([1]))["job_status"]["status"] == "succeeded"


def parts(running: System) -> set[int]:
    return {
        process.pid
        for name in ("gateway", "scheduler", "collector")
        for process in running.processes(f"services.{name}")
    }


def test_idle_it_is_three_processes_and_ends_with_all_of_them(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        assert len(parts(running)) == 3
        assert running.stop() == 0
