"""`cortex submit` as a process: what it reads and sends, and what it says."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from cortex.cli.job_options import OPTIONS
from tests.integration.cli_kit import CORTEX, ENDED, WATCH, Cli, in_a_terminal
from tests.integration.client_kit import JOB_ID, Reply, Server, line


def test_items_reach_the_server_byte_for_byte(server: Server, cli: Cli) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    done = cli(
        "submit", "digits", "--items", "-", "--batch-size", "2", "--workers", "3", "--config", '{"x": 1e400}',
        given=b'1.0\n{"a":1,"a":2}\n12345678901234567890\n',
    )  # fmt: skip
    assert done.stdout == f"submitted job {JOB_ID} to digits\nwatch it: cortex watch digits {JOB_ID}\n"
    assert server.asked[0].body == (
        b'{"workers":3,"config":{"x": 1e400},'
        b'"item_list":{"items":[1.0,{"a":1,"a":2},12345678901234567890],"batch_size":2}}'
    )


def test_items_and_config_may_come_from_files_and_warnings_are_shown(server: Server, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text("[1, 2]\n")
    (tmp_path / "config.json").write_text('{"b": 1.0}\n')
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID, "warnings": ["`worker` is not known"]}))
    items, config = str(tmp_path / "items.json"), f"@{tmp_path / 'config.json'}"
    done = cli("submit", "digits", "--items", items, "--batch-size", "1", "--config", config, "-o", "json")
    assert json.loads(done.stdout)["job_id"] == JOB_ID
    assert done.stderr == "warning: `worker` is not known\n"
    assert b'"config":{"b": 1.0},"item_list":{"items":[1, 2],' in server.asked[0].body


def test_submit_with_watch_follows_the_job(server: Server, cli: Cli) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    server.on(WATCH, Reply(lines=[line(ENDED)]))
    arguments = ["submit", "digits", "--items", "-", "--batch-size", "1", "--watch", "-o", "json"]
    done = cli(*arguments, given=b"[1]")
    assert done.returncode == 3
    assert [json.loads(each) for each in done.stdout.splitlines()] == [{"job_id": JOB_ID}, ENDED]


def test_quietly_the_id_is_all_that_is_printed(server: Server, cli: Cli) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    done = cli("submit", "digits", "--items", "-", "--batch-size", "1", "-q", given=b"[1]")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{JOB_ID}\n", "")
    server.on(WATCH, Reply(lines=[line(ENDED)]))
    done = cli("submit", "digits", "--items", "-", "--batch-size", "1", "--quiet", "--watch", given=b"[1]")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{JOB_ID}\n", "")
    server.on(f"POST /batch/digits/{JOB_ID}/retry", Reply({"job_id": "69a1b2c3d4e5f600", "retry_of": JOB_ID}))
    assert cli("retry", "digits", JOB_ID, "-q").stdout == "69a1b2c3d4e5f600\n"


def test_quietly_there_is_no_bar_either(server: Server, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "items").write_bytes(b"1\n")
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    arguments = ["submit", "digits", "--items", str(tmp_path / "items"), "--stream", "--batch-size", "1", "--quiet"]
    done = in_a_terminal(environ, *arguments)
    assert (done.returncode, done.stdout) == (0, f"{JOB_ID}\r\n")


def test_items_from_a_closed_standard_input_are_a_plain_error(environ: dict[str, str]) -> None:
    command = f"exec {CORTEX} submit digits --items - --batch-size 1 <&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=environ, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: standard input is closed: give a FILE\n")


SUBMIT = "POST /batch/digits"


def test_all_that_a_job_may_have_is_asked_for(server: Server, cli: Cli) -> None:
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    cli.environ["HOOK_SECRET"] = "s3cret"
    done = cli(
        "submit", "digits", "--delimited", "s3://b/in/", "--delimited", "file:///data/", "--include", "**.json",
        "--exclude", "**/tmp/**", "--batch-size", "10", "--batches-per-worker", "100", "--max-workers", "8",
        "--timeout", "60", "--batch-timeout", "5", "--backoff", "0.5", "--max-backoff", "9", "--retry-on", "500,503",
        "--split-failed", "--max-failed-percent", "2.5", "--dead-letter-queue", "arn:q", "--max-receive-count", "3",
        "--results-to", "s3://b/out/", "--webhook", "https://x/hook", "--webhook-secret-env", "HOOK_SECRET",
        "--idempotency-key", "mine",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert server.asked[0].headers["Idempotency-Key"] == "mine"
    assert json.loads(server.asked[0].body) == {
        "delimited_files": {
            "s3_paths": ["s3://b/in/", "file:///data/"],
            "includes": ["**.json"],
            "excludes": ["**/tmp/**"],
            "batch_size": 10,
        },
        "workers": {"batches_per_worker": 100, "max_workers": 8},
        "timeout": 60,
        "batch_timeout": 5,
        "retries": {"backoff_seconds": 0.5, "max_backoff_seconds": 9, "on": [500, 503]},
        "split_failed": True,
        "max_failed_percent": 2.5,
        "sqs_dead_letter_queue": {"arn": "arn:q", "max_receive_count": 3},
        "results": {"s3_path": "s3://b/out/"},
        "webhook": {"url": "https://x/hook", "secret": "s3cret"},
    }


def test_the_help_shows_every_option_once_in_sections(cli: Cli) -> None:
    lines = cli("submit", "--help").stdout.splitlines()
    titles = [line[:-1] for line in lines if line and line[0] != " " and line.endswith(":")]
    assert titles == ["Input, one of", "Batches and workers", "Failures", "Results and notice", "Options"]
    options = [line.split()[0] for line in lines if line.startswith("  -")]
    assert (
        len(options)
        == len(set(options))
        == len(OPTIONS) + len(["dry-run", "watch", "quiet", "key", "env", "out", "help"])
    )


def test_retries_are_attempts_after_the_first(server: Server, cli: Cli) -> None:
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    cli("submit", "digits", "--files", "s3://b/in/", "--batch-size", "1", "--retries", "2", "--results")
    assert json.loads(server.asked[0].body) == {
        "workers": 1,
        "retries": {"max_attempts": 3},
        "results": True,
        "file_path_lister": {"s3_paths": ["s3://b/in/"], "batch_size": 1},
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch-size", "1"], "give exactly one of --items, --files, --delimited and --job"),
        (["--items", "-", "--files", "s3://b/", "--batch-size", "1"], "give exactly one of"),
        (["--items", "-"], "--batch-size N is needed"),
        (["--job", "-", "--workers", "2"], "--workers: --job FILE says all of the job"),
        (["--files", "s3://b/", "--stream", "--batch-size", "1"], "--stream goes with --items"),
        (["--items", "-", "--include", "*", "--batch-size", "1"], "--include and --exclude go with --files"),
        (["--items", "-", "--batch-size", "1", "--max-workers", "2"], "--batches-per-worker and --max-workers"),
        (["--items", "-", "--batch-size", "1", "--dead-letter-queue", "a"], "--dead-letter-queue and --max-receive"),
        (["--items", "-", "--batch-size", "1", "--backoff", "2"], "--backoff needs --retries N"),
        (["--items", "-", "--batch-size", "1", "--retries", "1", "--retry-on", "5xx"], "not a list of HTTP statuses"),
        (["--items", "-", "--batch-size", "1", "--webhook-secret-env", "A"], "--webhook-secret-env needs --webhook"),
        (["--items", "-", "--batch-size", "1", "--dry-run", "--watch"], "--dry-run submits nothing"),
        (["--items", "-", "--batch-size", "1", "--dry-run", "--quiet"], "--dry-run submits nothing"),
        (["--items", "-", "--batch-size", "1", "--quiet", "-o", "json"], "leave out --quiet or --output json"),
    ],
)
def test_options_that_do_not_go_together_are_refused(cli: Cli, arguments: list[str], told: str) -> None:
    done = cli("submit", "digits", *arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_bare_path_is_not_taken_for_one_or_another(cli: Cli, tmp_path: Path) -> None:
    cli.directory = tmp_path
    done = cli("submit", "digits", "--delimited", "data/", "--batch-size", "1")
    assert done.returncode == 1
    assert (
        f"data/ is not a path that a deployment can read: give s3://bucket/prefix, or file://{tmp_path}/data/ for"
        in (done.stderr)
    )


def test_a_secret_that_is_not_there_is_told(cli: Cli) -> None:
    arguments = ["--items", "-", "--batch-size", "1", "--webhook", "https://x", "--webhook-secret-env", "NOT_THERE"]
    done = cli("submit", "digits", *arguments, given=b"1")
    assert done.stderr == "error: the environment variable NOT_THERE is not set: it holds the secret\n"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (b'{"workers": 2, "config": {"x": 1e400}}\n', b'{"workers": 2, "config": {"x": 1e400}}'),
        (
            b"workers: 2\nretries: {on: [500]}\nsplit_failed: true\nconfig: 2026-01-01\n",
            b'{"workers": 2, "retries": {"on": [500]}, "split_failed": true, "config": "2026-01-01"}',
        ),
    ],
)
def test_a_whole_submission_is_sent_as_it_is(
    server: Server, cli: Cli, tmp_path: Path, text: bytes, sent: bytes
) -> None:
    file = tmp_path / "job"
    file.write_bytes(text)
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    assert cli("submit", "digits", "--job", str(file)).returncode == 0
    assert server.asked[0].body == sent


def test_a_submission_that_is_none_is_told_with_its_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("workers: !!set {2}\n")
    done = cli("submit", "digits", "--job", str(file))
    assert done.stderr.startswith(f"error: {file} is not a submission in JSON or YAML: Object of type set")


def test_a_dry_run_lists_the_files_and_its_mistakes_are_errors(server: Server, cli: Cli) -> None:
    text = b"s3://b/1\ns3://b/\x1b[2J\nvalidations passed\n"
    server.on(f"{SUBMIT}?dryRun=true", Reply(text, content_type="text/plain"))
    arguments = ["submit", "digits", "--files", "s3://b/", "--batch-size", "1", "--dry-run"]
    assert cli(*arguments).stdout == "s3://b/1\ns3://b/\\x1b[2J\nvalidations passed\n"
    told = [json.loads(each) for each in cli(*arguments, "-o", "json").stdout.splitlines()]
    assert told == ["s3://b/1", "s3://b/\x1b[2J", "validations passed"]
    server.on(f"{SUBMIT}?dryRun=true", Reply(b"no s3 files match\n", 400, content_type="text/plain"))
    done = cli(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: no s3 files match\n")


LARGE = (b'{"text": "' + b"x" * 1000 + b'", "n": 1.0}\n') * 11_000


def test_more_lines_than_one_request_takes_are_streamed_as_they_are(server: Server, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "items.ndjson"
    file.write_bytes(b"\xef\xbb\xbf" + LARGE)
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    for name, given in ((str(file), b""), ("-", LARGE)):
        done = cli("submit", "digits", "--items", name, "--batch-size", "2", "--config", '{\n"x": 1e400}', given=given)
        assert (done.returncode, done.stderr) == (0, "")
        asked = server.asked.pop()
        assert asked.headers["Content-Type"] == "application/x-ndjson"
        assert asked.body == b'{"workers":1,"config":{ "x": 1e400},"batch_size":2}\n' + LARGE


def test_an_array_that_is_too_large_for_one_request_is_told_what_to_become(cli: Cli) -> None:
    array = b"[\n" + b",\n".join(LARGE.split(b"\n")[:-1]) + b"\n]"
    done = cli("submit", "digits", "--items", "-", "--batch-size", "2", given=array)
    assert done.stderr.startswith(
        "error: standard input is a JSON array of more than 10 MiB: write its items one a line"
    )


def test_a_stream_from_a_pipe_is_sent_line_by_line(server: Server, environ: dict[str, str]) -> None:
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    process = subprocess.Popen(
        [CORTEX, "submit", "digits", "--items", "-", "--stream", "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, bufsize=0,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        came = b""
        for item in (b"[1]\n", b'"two"\n'):
            process.stdin.write(item)
            while not came.endswith(item):
                came += server.chunks.get(timeout=20)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert came == b'{"workers":1,"batch_size":1}\n[1]\n"two"\n'
    assert out.startswith(f"submitted job {JOB_ID}".encode())


def test_a_stream_shows_how_far_it_is_and_gives_way_to_a_refusal(server: Server, environ: dict[str, str]) -> None:
    refusal = {"kind": "batchapi.item_size_exceeds_limit", "message": "line 3: too large"}
    server.on(SUBMIT, Reply(refusal, 400, after=1_000_000))
    file = Path(environ["CORTEX_CLI_CONFIG_DIR"]) / "items.ndjson"
    file.write_bytes(LARGE)
    done = in_a_terminal(environ, "submit", "digits", "--items", str(file), "--batch-size", "1")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout)
    assert done.returncode == 1
    assert "sending" in text
    assert "/11.3 MB" in text
    assert text.endswith("error: line 2: too large (batchapi.item_size_exceeds_limit)\r\n")


def test_ctrl_c_breaks_a_stream_off(server: Server, environ: dict[str, str]) -> None:
    server.on(SUBMIT, Reply({"job_id": JOB_ID}))
    process = subprocess.Popen(
        [CORTEX, "submit", "digits", "--items", "-", "--stream", "--batch-size", "1"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, bufsize=0,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(b"1\n")
        while not server.chunks.get(timeout=20).endswith(b"1\n"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == (
            b"broken off: if the job had begun, it ends as `enqueue_failed`\n  see it: cortex get digits latest\n"
        )
        assert server.chunks.get(timeout=20) == b""  # no end came that could be taken for the end of the items
    finally:
        process.kill()
        process.communicate()
    assert not server.asked[0].whole
