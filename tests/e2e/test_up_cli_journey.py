"""The command line against the whole system, from the first deployment to the last deletion."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import cortex
from tests.e2e.system import CONTAINER, CORTEX, System, system
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("journey")) as found:
        yield found


class Cli:
    def __init__(self, running: System, home: Path) -> None:
        self.environ = {**os.environ, "CORTEX_CLI_CONFIG_DIR": str(home)}
        assert self("env", "configure", "here", "--operator-endpoint", running.url).returncode == 0

    def __call__(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CORTEX, *arguments], input=given, capture_output=True, text=True, env=self.environ, timeout=60, check=False
        )

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cli(running: System, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(running, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def api(cli: Cli, running: System, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An API deployed from a file, whose command is found relative to that file."""
    directory = tmp_path_factory.mktemp("api")
    (directory / "server.py").symlink_to(CONTAINER)
    container = {"name": "api", "image": "none", "command": [sys.executable, "server.py"]}
    environment = {"NOTES": str(running.notes), "WHERE": "$(CORTEX_PORT)"}
    file = directory / "cortex.yaml"
    file.write_text(yaml.safe_dump([{
        "name": "journey", "kind": "BatchAPI", "pod": {"containers": [container | {"env": environment}]},
    }]))  # fmt: skip
    done = cli("deploy", str(file))
    assert done.stdout == f"created journey (BatchAPI)\n  endpoint: {running.url}/journey\n", done.stderr
    assert "journey (BatchAPI) is up to date" in cli("deploy", str(file)).stdout
    return "journey"


def job_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.split()[2]  # submitted job ID to ...


def test_a_job_is_submitted_watched_shown_and_drawn(cli: Cli, api: str) -> None:
    items = "\n".join(str(number) for number in range(20))
    done = cli("submit", api, "--items", "-", "--batch-size", "2", "--workers", "2", "--watch", given=items)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1].startswith("succeeded after ")
    job = job_of(done)
    assert "10/10 done: 0 pending, 0 leased, 10 succeeded, 0 failed" in cli("get", api, job).stdout
    assert job in cli("get", api).stdout
    assert job in cli("get").stdout
    assert "api" in cli("logs", api, job, "--follow").stdout
    assert cli("watch", api, job).returncode == 0
    services = ("gateway", "scheduler", "dequeuer")  # each sends its spans in its own time
    wait_for("the whole trace", lambda: all(f"\n{name} " in cli("trace", api, job).stdout for name in services))
    assert {span["service"] for span in cli.json("trace", api, job)["spans"]} >= {"cortex-gateway", "cortex-dequeuer"}


def test_failed_batches_show_in_the_exit_code_and_in_the_trace(cli: Cli, api: str) -> None:
    items = '["good", "fail", "good"]'
    done = cli("submit", api, "--items", "-", "--batch-size", "1", "--watch", given=items)
    assert done.returncode == 3
    assert "completed_with_failures after" in done.stdout
    assert "2 of 3 batches succeeded, 1 failed" in done.stdout
    wait_for("the failure in the trace", lambda: "✗" in cli("trace", api, job_of(done)).stdout)


def test_bad_items_end_up_alone_and_the_replies_to_the_others_are_kept(cli: Cli, api: str) -> None:
    failing = ("--retries", "1", "--backoff", "0", "--split-failed", "--results")
    done = cli("submit", api, "--items", "-", "--batch-size", "4", *failing, "--watch", given='[1, 2, "fail", 4]')
    assert done.returncode == 3
    assert "2 of 3 batches succeeded, 1 failed" in done.stdout  # [1, 2] and [4], which were halved off
    job = job_of(done)
    followed = [json.loads(reply)["batch"] for reply in cli("results", api, job, "--follow").stdout.splitlines()]
    assert followed == sorted(followed)
    assert len(followed) == 2
    (failed,) = (json.loads(line) for line in cli("results", api, job, "--errors").stdout.splitlines())
    assert failed["items"] == ["fail"]
    assert failed["index"] not in followed


def test_a_running_job_is_paused_scaled_and_resumed(cli: Cli, api: str) -> None:
    items = json.dumps([{"sleep": 0.1}] * 30)
    job = job_of(cli("submit", api, "--items", "-", "--batch-size", "1", given=items))
    assert cli.json("pause", api, job)["job_status"]["paused"] is True
    assert "(paused)" in cli("get", api, job).stdout
    assert cli("scale", api, job, "2").stdout == f"job {job} has 2 workers now\n"
    assert cli("resume", api, job).stdout == f"job {job} goes on\n"
    assert cli("watch", api, job).stdout.splitlines()[-1].endswith("30 batches succeeded, 0 failed")
    assert cli.json("get", api, job)["job_status"]["workers"] == 2


def test_a_job_is_stopped(cli: Cli, api: str) -> None:
    done = cli("submit", api, "--items", "-", "--batch-size", "1", given='[{"sleep": 60}]')
    job = job_of(done)
    assert cli("delete", api, job).stdout == f"stopped job {job}\n"
    assert cli("watch", api, job).returncode == 4
    assert "job.job_is_not_in_progress" in cli("delete", api, job).stderr


def test_the_python_client_does_the_same(running: System, cli: Cli, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_CLI_CONFIG_DIR", cli.environ["CORTEX_CLI_CONFIG_DIR"])
    client = cortex.client()
    job = client.submit_job(api, items=[1, 2, 3], batch_size=2, workers=1, config={"a": 1})
    *_, last = client.watch_job(api, job["job_id"])
    assert last["job_status"]["status"] == "succeeded"
    assert client.get_job(api, job["job_id"])["job_status"]["config"] == {"a": 1}
    assert [entry["container"] for entry in client.job_logs(api, job["job_id"])].count("api") >= 1
    assert client.list_apis()[0]["metadata"]["name"] == api
    with pytest.raises(cortex.exceptions.NotFound):
        client.get_api("nope")
    with pytest.raises(cortex.exceptions.CortexException, match="only supported for"):
        client.refresh(api)


def test_deleting_the_api_ends_the_journey(cli: Cli, api: str) -> None:
    assert cli("delete", api).stdout == f"deleting {api}\n"
    assert cli("get").stdout == "no APIs are deployed; deploy one with `cortex deploy FILE`\n"
    assert "resources.api_not_deployed" in cli("get", api).stderr
