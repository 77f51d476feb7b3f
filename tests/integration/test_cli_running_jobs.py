"""`cortex scale`, `pause`, `resume` and `results` as processes, and how `get` and `watch` show what they do."""

import json
import subprocess
from typing import Any

import pytest

from tests.integration.cli_kit import CORTEX, WATCH, Cli
from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line

RESULTS = f"GET /batch/digits/{JOB_ID}/results"


def test_a_running_job_is_scaled_paused_and_resumed(server: Server, cli: Cli) -> None:
    server.on(f"PATCH /batch/digits?jobID={JOB_ID}", Reply(job_status()))
    assert cli("scale", "digits", JOB_ID, "5").stdout == f"job {JOB_ID} has 5 workers now\n"
    paused = cli("pause", "digits", JOB_ID, "--env", "test").stdout
    assert paused == f"job {JOB_ID} is paused\ngo on: cortex resume digits {JOB_ID} --env test\n"
    assert cli("resume", "digits", JOB_ID).stdout == f"job {JOB_ID} goes on\n"
    assert cli.json("scale", "digits", JOB_ID, "1") == job_status()
    bodies = [json.loads(asked.body) for asked in server.asked]
    assert bodies == [{"workers": 5}, {"paused": True}, {"paused": False}, {"workers": 1}]
    assert cli("scale", "digits", JOB_ID, "0").returncode == 2


def test_results_and_errors_are_lines_as_the_server_wrote_them(server: Server, cli: Cli) -> None:
    replies = [b'{"batch":0,"reply":{"x":1e400,"x":1.0}}\n', b'{"batch":2,"reply":"\\u001b"}\n']
    failed = b'{"index":1,"state":"failed","items":[1.0]}\n'
    server.on(RESULTS, Reply(lines=replies))
    server.on(f"{RESULTS}?follow=true", Reply(lines=replies))
    server.on(f"GET /batch/digits/{JOB_ID}/errors", Reply(lines=[failed]))
    for options in ([], ["--follow"], ["-o", "json"]):
        assert cli("results", "digits", JOB_ID, *options).stdout.encode() == b"".join(replies)
    assert cli("results", "digits", JOB_ID, "--errors").stdout.encode() == failed
    assert cli("results", "digits", JOB_ID, "--errors", "--follow").returncode == 2


def test_a_job_that_keeps_no_results_is_told(server: Server, cli: Cli) -> None:
    server.on(RESULTS, Reply({"kind": "job.results_not_kept", "message": "the job keeps no replies"}, 400))
    done = cli("results", "digits", JOB_ID)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the job keeps no replies (job.results_not_kept)\n  jobs that are submitted with --results keep them\n"
    )


def test_a_reader_that_goes_away_ends_the_results_quietly(server: Server, environ: dict[str, str]) -> None:
    server.on(RESULTS, Reply(lines=[b'{"batch":%d,"reply":"%b"}\n' % (number, b"x" * 1000) for number in range(2000)]))
    command = f"{CORTEX} results digits {JOB_ID} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=environ, timeout=30, check=False)
    assert (done.stdout[:20], done.stderr) == (b'{"batch":0,"reply":"', b"")


ASKED_FOR: dict[str, Any] = {
    "retries": {"max_attempts": 3, "backoff_seconds": 1, "max_backoff_seconds": 60, "on": [500, 503]},
    "split_failed": True,
    "results": {"s3_path": "s3://b/out/"},
    "worker_scaling": {"batches_per_worker": 100, "max_workers": 8},
    "max_failed_percent": 2.5,
    "sqs_dead_letter_queue": {"arn": "arn:q", "max_receive_count": 3},
}


def test_one_job_shows_what_was_asked_for_and_how_it_stands(server: Server, cli: Cli) -> None:
    hook = {"url": "https://x/hook", "attempts": 0, "delivered_time": None, "error": ""}
    progress = {"batches_per_second": 0.25, "eta_seconds": 3661.4}
    running = job_status(done=4, webhook=hook, progress=progress, **ASKED_FOR)
    server.on(f"GET /batch/digits?jobID={JOB_ID}", Reply(running))
    shown = dict(
        row.split(None, 1) for row in cli("get", "digits", JOB_ID).stdout.replace("failed limit", "limit").splitlines()
    )
    assert shown["speed"] == "0.2/s, 1:01:01 left"
    assert shown["workers"] == "2, one for each 100 batches, 8 at most (2 ready)"
    assert shown["retries"] == "3 attempts at most, 1 to 60 s apart, after 500, 503 or no answer"
    assert shown["split"] == "a batch that keeps failing is halved"
    assert shown["limit"] == "the job stops when more than 2.5% of its batches failed"
    assert shown["dead"] == "letters  arn:q after 3 attempts"
    assert shown["results"] == "kept, and written to s3://b/out/"
    assert shown["webhook"] == "https://x/hook"


@pytest.mark.parametrize(
    ("delivery", "told"),
    [
        ({"attempts": 1, "delivered_time": "2026-11-23T13:01:06Z", "error": ""}, "https://x, told "),
        (
            {"attempts": 4, "delivered_time": None, "error": "status 503"},
            "https://x, not told yet after 4 attempts: status 503",
        ),
    ],
)
def test_what_became_of_a_webhook_is_told_once_the_job_is_over(
    server: Server, cli: Cli, delivery: dict[str, Any], told: str
) -> None:
    over = job_status("succeeded", done=10, webhook={"url": "https://x", **delivery})
    server.on(f"GET /batch/digits?jobID={JOB_ID}", Reply(over))
    assert told in cli("get", "digits", JOB_ID).stdout


def test_a_watched_job_shows_that_it_is_paused_how_fast_it_is_and_where_its_results_are(
    server: Server, cli: Cli
) -> None:
    progress = {"batches_per_second": 12.6, "eta_seconds": 65}
    paused = job_status(done=4, paused=True, progress=progress)
    over = job_status("succeeded", done=10, results=True)
    server.on(WATCH, Reply(lines=[line(paused)], broken=True), Reply(lines=[line(over)]))
    done = cli("watch", "digits", JOB_ID)
    assert done.stdout.splitlines()[0] == "running (paused): 4/10 batches, 2/2 workers ready"
    assert done.stderr == f"its results: cortex results digits {JOB_ID}\n"
    server.on(WATCH, Reply(lines=[line(job_status(done=4, progress=progress)), line(over)]))
    assert cli("watch", "digits", JOB_ID).stdout.startswith(
        "running: 4/10 batches, 13/s, 1:05 left, 2/2 workers ready\n"
    )
