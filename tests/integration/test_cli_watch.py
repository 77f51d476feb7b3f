"""`cortex watch` as a process: bars, lines, exit codes and Ctrl-C."""

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tests.integration.cli_kit import CORTEX, ENDED, WATCH, Cli, in_a_terminal
from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (job_status("succeeded", done=10), 0),
        (ENDED, 3),
        (job_status("stopped", done=4), 4),
        (job_status("worker_oom", done=4), 4),
    ],
)
def test_the_exit_code_of_watch_tells_how_the_job_ended(server: Server, cli: Cli, last: Any, code: int) -> None:
    server.on(WATCH, Reply(lines=[line(job_status(done=1)), line(last)]))
    assert cli("watch", "digits", JOB_ID).returncode == code
    assert cli("watch", "digits", JOB_ID, "--output", "json").returncode == code


def test_watching_into_a_pipe_gives_plain_lines(server: Server, cli: Cli) -> None:
    server.on(WATCH, Reply(lines=[line(job_status(done=1)), line(job_status(done=2)), line(ENDED)]))
    done = cli("watch", "digits", JOB_ID)
    first, *_, end, reason = done.stdout.splitlines()
    assert first == "running: 1/10 batches, 2/2 workers ready"
    assert end == "completed_with_failures after 1m 05s: 8 of 10 batches succeeded, 2 failed"
    assert reason == "reason: 2 batches failed"
    assert done.stderr.startswith(f"its failed batches: cortex failures digits {JOB_ID}\n")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) <= 4  # a line a second at most, however many changes there are


def test_what_holds_a_job_up_is_told_once_and_where_to_look_when_it_failed(server: Server, cli: Cli) -> None:
    held_up = line(job_status(done=0, reason="no worker is ready"))
    server.on(WATCH, Reply(lines=[held_up, held_up, line(job_status(done=1)), line(job_status("stopped", done=1))]))
    done = cli("watch", "digits", JOB_ID)
    assert done.stdout.count("waiting: no worker is ready\n") == 1
    assert done.stderr == f"what its containers wrote: cortex logs digits {JOB_ID}\n"


def test_watching_in_a_terminal_draws_a_bar_that_gives_way_to_the_end(server: Server, environ: dict[str, str]) -> None:
    server.on(WATCH, Reply(lines=[line(job_status("pending", total=None)), line(job_status(done=4)), line(ENDED)]))
    process = in_a_terminal(environ, "watch", "digits", JOB_ID)
    assert process.returncode == 3
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", process.stdout)
    assert "━━━" in text
    assert "completed_with_failures after 1m 05s: 8 of 10 batches succeeded, 2 failed" in text


def test_a_dumb_terminal_gets_lines(server: Server, environ: dict[str, str]) -> None:
    server.on(WATCH, Reply(lines=[line(job_status(done=4)), line(ENDED)]))
    screen = in_a_terminal(environ, "watch", "digits", JOB_ID, TERM="dumb").stdout
    assert screen.startswith("running: 4/10 batches, 2/2 workers ready\r\n")
    assert "\x1b" not in screen


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(server: Server, environ: dict[str, str]) -> None:
    server.on(WATCH, Reply(lines=[line(job_status(done=1))]))  # asked again and again
    process = subprocess.Popen(
        [CORTEX, "watch", "digits", JOB_ID, "--env", "test"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("running: 1/10")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert f"job {JOB_ID} goes on" in errors
    assert f"cortex delete digits {JOB_ID} --env test" in errors


def test_a_retry_is_submitted_shown_and_watched(server: Server, cli: Cli) -> None:
    new = "69a1b2c3d4e5f001"
    server.on(f"POST /batch/digits/{JOB_ID}/retry", Reply({"job_id": new, "retry_of": JOB_ID}))
    done = cli("retry", "digits", JOB_ID)
    assert done.stdout.splitlines() == [
        f"submitted job {new} to digits, the failed batches of {JOB_ID}",
        f"watch it: cortex watch digits {new}",
    ]
    server.on(f"GET /batch/digits?jobID={new}&watch=true", Reply(lines=[line(ENDED)]))
    assert cli("retry", "digits", JOB_ID, "--workers", "3", "--watch").returncode == 3
    assert [json.loads(asked.body) for asked in server.asked if asked.method == "POST"] == [{}, {"workers": 3}]
    refusal = Reply({"kind": "job.no_failed_batches", "message": "nothing failed"}, 400)
    server.on(f"POST /batch/digits/{JOB_ID}/retry", refusal)
    refused = cli("retry", "digits", JOB_ID)
    assert (refused.returncode, refused.stderr) == (1, "error: nothing failed (job.no_failed_batches)\n")
