"""The command line and its terminal: colours, widths, escape sequences, and output that goes nowhere."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_kit import CORTEX, ENDED, Cli, in_a_terminal
from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(server: Server, environ: dict[str, str], changes: dict[str, Any]) -> None:
    entry = {"worker": 0, "container": "api", "message": "hello"}
    server.on(f"GET /batch/digits/{JOB_ID}/logs", Reply(lines=[line(entry)]))
    assert in_a_terminal(environ, "logs", "digits", JOB_ID, **changes).stdout == "0/api | hello\r\n"


def test_a_narrow_terminal_cuts_no_job_id(server: Server, environ: dict[str, str]) -> None:
    api = {"metadata": {"name": "digits", "last_updated": 0}, "batch_job_statuses": [ENDED["job_status"]]}
    server.on("GET /get", Reply([api]))
    assert JOB_ID in in_a_terminal(environ, "get", COLUMNS="60").stdout


def test_output_that_cannot_be_written_is_one_line_too(server: Server, environ: dict[str, str]) -> None:
    server.on("GET /get", Reply([]))
    for arguments in (["get"], ["get", "-o", "json"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([CORTEX, *arguments], stdout=full, stderr=subprocess.PIPE, env=environ, check=False)
        assert (done.returncode, done.stderr) == (1, b"error: No space left on device\n")


def test_a_reader_that_goes_away_ends_the_log_quietly(server: Server, environ: dict[str, str]) -> None:
    entry = line({"worker": 0, "container": "api", "message": "x" * 1000})
    server.on(f"GET /batch/digits/{JOB_ID}/logs", Reply(lines=[entry] * 1000))
    process = subprocess.Popen(
        [CORTEX, "logs", "digits", JOB_ID], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(10) == 1


def test_containers_cannot_drive_the_terminal(server: Server, environ: dict[str, str], cli: Cli) -> None:
    evil = "\x1b]0;title\x07\x9b2J\x1b[31mred\x1b[0m"
    entry = {"worker": 0, "container": "a", "message": evil}
    shown = r"\x1b]0;title\x07\x9b2Jred"
    server.on(f"GET /batch/digits/{JOB_ID}/logs", Reply(lines=[line(entry)]))
    server.on("GET /batch/digits?jobID=1", Reply(job_status("worker_error", reason=evil)))
    server.on("GET /get/nope", Reply({"kind": "test.evil", "message": evil}, 404))
    server.on("GET /get", Reply(json.dumps([evil], ensure_ascii=False).encode()))
    assert shown in cli("get", "digits", "1").stdout
    assert cli("get", "nope").stderr == f"error: {shown} (test.evil)\n"
    assert shown in in_a_terminal(environ, "logs", "digits", JOB_ID).stdout
    assert r"\u009b2J" in in_a_terminal(environ, "get", "-o", "json").stdout
