"""`latest` in place of a job's id, in every command that takes one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_kit import ENDED, WATCH, Cli, environment_of
from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line, serving

API = "GET /get/digits"
JOB = f"/batch/digits/{JOB_ID}"
TOLD = f"latest is job {JOB_ID}\n"


def api(*jobs: str) -> Reply:
    """The API with these jobs, newest first."""
    return Reply([{"batch_job_statuses": [{"job_id": job} for job in jobs]}])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        found.on(API, api(JOB_ID, "79a1b2c3d4e5f607"))
        yield found


@pytest.fixture
def cli(server: Server, tmp_path: Path) -> Cli:
    return Cli(environment_of(server, tmp_path))


COMMANDS = {
    "get": (f"GET /batch/digits?jobID={JOB_ID}", Reply(job_status())),
    "watch": (WATCH, Reply(lines=[line(ENDED)])),
    "logs": (f"GET {JOB}/logs", Reply(lines=[])),
    "trace": (f"GET {JOB}/trace", Reply({"trace_id": "1", "spans": [], "dropped_spans": 0})),
    "failures": (
        f"GET {JOB}/batches?state=failed&page_size=1000",
        Reply({"batches": [], "next_page_token": ""}),
    ),
    "retry": (f"POST {JOB}/retry", Reply({"job_id": "69a1b2c3d4e5f600", "retry_of": JOB_ID})),
    "results": (f"GET {JOB}/results", Reply(lines=[b'{"batch":0,"reply":1}\n'])),
    "scale": (f"PATCH /batch/digits?jobID={JOB_ID}", Reply(job_status())),
    "pause": (f"PATCH /batch/digits?jobID={JOB_ID}", Reply(job_status())),
    "resume": (f"PATCH /batch/digits?jobID={JOB_ID}", Reply(job_status())),
    "delete": (f"DELETE /batch/digits?jobID={JOB_ID}", Reply({"message": f"stopped job {JOB_ID}"})),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_latest_is_the_newest_job_and_standard_error_says_which(server: Server, cli: Cli, command: str) -> None:
    request, reply = COMMANDS[command]
    server.on(request, reply)
    done = cli(command, "digits", "latest", *(["3"] if command == "scale" else []), "-o", "json")
    assert (done.returncode, done.stderr) == (3 if command == "watch" else 0, TOLD)
    assert [f"{asked.method} {asked.target}" for asked in server.asked] == [API, request]


def test_what_is_said_of_the_job_names_it(server: Server, cli: Cli) -> None:
    server.on(*COMMANDS["pause"])
    done = cli("pause", "digits", "latest")
    assert done.stdout == f"job {JOB_ID} is paused\ngo on: cortex resume digits {JOB_ID}\n"


def test_an_api_without_jobs_has_no_latest_one(server: Server, cli: Cli) -> None:
    server.on(API, api())
    done = cli("watch", "digits", "latest")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: digits has no jobs yet: `cortex submit digits ...` submits one\n"
