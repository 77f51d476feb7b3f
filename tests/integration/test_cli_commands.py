"""The command line as a process: what it prints where, and its exit codes."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line, serving

CORTEX = str(Path(sys.executable).with_name("cortex"))
WATCH = f"GET /batch/digits?jobID={JOB_ID}&watch=true"
ENDED = job_status("completed_with_failures", done=10, failed=2, reason="2 batches failed")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def environ(server: Server, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "cli.yaml").write_text(f"environments: [{{name: test, operator_endpoint: '{server.url}'}}]")
    return {**os.environ, "CORTEX_CLI_CONFIG_DIR": str(tmp_path)}


class Cli:
    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def __call__(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run([CORTEX, *arguments], input=given, capture_output=True, env=self.environ, timeout=30)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "-o", "json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


@pytest.fixture
def cli(environ: dict[str, str]) -> Cli:
    return Cli(environ)


def in_a_terminal(
    environ: dict[str, str], *arguments: str, typed: bytes | None = None, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a terminal; `stdout` is what came to the screen. `changes` are of its environment.

    With `typed` its input is the terminal too, and that is typed there.
    """
    ours, theirs = pty.openpty()
    terminal = {**environ, "TERM": "xterm-256color", "COLUMNS": "100", **changes}
    stdin = None if typed is None else theirs
    process = subprocess.Popen([CORTEX, *arguments], stdin=stdin, stdout=theirs, stderr=theirs, env=terminal)
    os.close(theirs)
    os.write(ours, typed or b"")
    screen = b""
    try:
        with contextlib.suppress(OSError):  # so a terminal says that nobody is at its other end any more
            while piece := os.read(ours, 65536):
                screen += piece
    finally:
        os.close(ours)
        code = process.wait(10)
    return subprocess.CompletedProcess(arguments, code, screen.decode())


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


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(server: Server, environ: dict[str, str], changes: dict[str, Any]) -> None:
    entry = {"worker": 0, "container": "api", "message": "hello"}
    server.on(f"GET /batch/digits/{JOB_ID}/logs", Reply(lines=[line(entry)]))
    assert in_a_terminal(environ, "logs", "digits", JOB_ID, **changes).stdout == "0/api | hello\r\n"


def test_a_dumb_terminal_gets_lines(server: Server, environ: dict[str, str]) -> None:
    server.on(WATCH, Reply(lines=[line(job_status(done=4)), line(ENDED)]))
    screen = in_a_terminal(environ, "watch", "digits", JOB_ID, TERM="dumb").stdout
    assert screen.startswith("running: 4/10 batches, 2/2 workers ready\r\n")
    assert "\x1b" not in screen


def test_a_narrow_terminal_cuts_no_job_id(server: Server, environ: dict[str, str]) -> None:
    api = {"metadata": {"name": "digits", "last_updated": 0}, "batch_job_statuses": [ENDED["job_status"]]}
    server.on("GET /get", Reply([api]))
    assert JOB_ID in in_a_terminal(environ, "get", COLUMNS="60").stdout


def test_submit_with_watch_follows_the_job(server: Server, cli: Cli) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    server.on(WATCH, Reply(lines=[line(ENDED)]))
    arguments = ["submit", "digits", "--items", "-", "--batch-size", "1", "--watch", "-o", "json"]
    done = cli(*arguments, given=b"[1]")
    assert done.returncode == 3
    assert [json.loads(each) for each in done.stdout.splitlines()] == [{"job_id": JOB_ID}, ENDED]


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


def test_errors_are_on_standard_error_with_what_to_do_next(server: Server, cli: Cli) -> None:
    server.on("GET /get/nope", Reply({"kind": "resources.api_not_deployed", "message": "nope is not deployed"}, 404))
    done = cli("get", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nope is not deployed (resources.api_not_deployed)\n  see what is: cortex get\n"
    server.on("GET /batch/digits?jobID=nope", Reply({"kind": "job.not_found", "message": "no such job"}, 404))
    done = cli("get", "digits", "nope", "--env", "test")
    assert done.stderr == "error: no such job (job.not_found)\n  see its jobs: cortex get digits --env test\n"
    done = cli("get", "nope", "-o", "json")
    assert (done.returncode, done.stdout) == (1, "")
    error = {"kind": "resources.api_not_deployed", "message": "nope is not deployed"}
    assert json.loads(done.stderr) == {"error": error}


def test_a_file_has_one_name_and_must_not_be_empty(server: Server, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    file = tmp_path / "api.yaml"
    file.touch()
    done = cli("deploy", str(file))
    assert (done.returncode, done.stderr) == (1, f"error: {file} is empty: it must hold a YAML list of APIs\n")
    file.write_text("- name: hello\n")
    server.on(f"POST /deploy?force=false&configFileName={quote(str(file), safe='')}", Reply([]))
    assert cli("deploy", str(tmp_path / "below" / ".." / "api.yaml")).returncode == 0


def test_items_from_a_closed_standard_input_are_a_plain_error(environ: dict[str, str]) -> None:
    command = f"exec {CORTEX} submit digits --items - --batch-size 1 <&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=environ, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: standard input is closed: give --items FILE\n")


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


@pytest.mark.parametrize("arguments", [["submit", "digits"], ["watch"], ["nope"], ["get", "-o", "xml"]])
def test_a_wrong_command_line_ends_with_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).returncode == 2


def test_json_is_handed_on_as_the_server_wrote_it(server: Server, cli: Cli) -> None:
    server.on(f"GET /batch/digits?jobID={JOB_ID}", Reply(b'{"config":{"x":1e400,"x":1.0}}'))
    assert cli("get", "digits", JOB_ID, "-o", "json").stdout == '{"config":{"x":1e400,"x":1.0}}\n'


def test_apis_jobs_and_one_job_are_shown_as_tables(server: Server, cli: Cli) -> None:
    state = ENDED["job_status"]
    metadata = {"name": "digits", "kind": "BatchAPI", "id": "v1", "last_updated": 1_700_000_000}
    api = {
        "metadata": metadata,
        "batch_job_statuses": [state],
        "spec": {"pod": {"containers": [{"name": "api", "command": ["python"], "args": ["-m", "server"]}]}},
        "endpoint": "http://127.0.0.1:8888/digits",
        "api_versions": [{"api_id": "v1", "last_updated": 1_700_000_000}],
    }
    server.on("GET /get", Reply([api, {"metadata": {**metadata, "name": "new"}, "batch_job_statuses": []}]))
    server.on("GET /get/digits", Reply([api]))
    server.on(f"GET /batch/digits?jobID={JOB_ID}", Reply(ENDED))
    header, digits, new = cli("get").stdout.splitlines()
    assert header.split() == ["API", "DEPLOYED", "RUNNING", "LATEST", "JOB", "STATUS", "BATCHES"]
    assert digits.split()[-3:] == [JOB_ID, "completed_with_failures", "10/10"]
    assert new.split()[-4:] == ["-", "-", "-", "-"]
    shown = cli("get", "digits").stdout
    assert "containers  api: python -m server" in shown
    assert "10/10       2" in shown
    assert "1m 05s" in shown
    shown = cli("get", "digits", JOB_ID).stdout
    assert "reason    2 batches failed" in shown
    assert "attempts  8 succeeded, 2 failed, 250 ms on average" in shown


def test_an_empty_deployment_says_what_to_do(server: Server, cli: Cli) -> None:
    server.on("GET /get", Reply([]))
    assert cli("get").stdout == "no APIs are deployed; deploy one with `cortex deploy FILE`\n"


def test_logs_are_lines_of_worker_container_and_message(server: Server, cli: Cli) -> None:
    entries = [{"worker": number, "container": "api", "message": f"it is {number}"} for number in range(2)]
    server.on(f"GET /batch/digits/{JOB_ID}/logs", Reply(lines=[line(entry) for entry in entries]))
    assert cli("logs", "digits", JOB_ID).stdout == "0/api | it is 0\n1/api | it is 1\n"
    raw = cli("logs", "digits", JOB_ID, "-o", "json").stdout
    assert [json.loads(each) for each in raw.splitlines()] == entries


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


def test_deploy_and_delete_say_what_became_of_it(server: Server, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "cortex.yaml"
    file.write_text("- name: digits\n")
    answer = [{"api": {"endpoint": "http://x/digits"}, "message": "created digits (BatchAPI)", "error": ""}]
    server.on(f"POST /deploy?force=true&configFileName={str(file).replace('/', '%2F')}", Reply(answer))
    server.on("DELETE /delete/digits?keepCache=false", Reply({"message": "deleting digits"}))
    server.on(f"DELETE /batch/digits?jobID={JOB_ID}", Reply({"message": f"stopped job {JOB_ID}"}))
    assert cli("deploy", str(file), "--force").stdout == "created digits (BatchAPI)\n  endpoint: http://x/digits\n"
    assert cli("delete", "digits").stdout == "deleting digits\n"
    assert cli.json("delete", "digits", JOB_ID) == {"message": f"stopped job {JOB_ID}"}


@pytest.mark.parametrize(
    ("typed", "options", "deleted"),
    [(b"n\n", (), False), (b"\n", (), False), (b"y\n", (), True), (b"", ("--force",), True)],
    ids=["no", "nothing", "yes", "not asked"],
)
def test_deleting_an_api_that_is_at_work_asks_in_a_terminal(
    server: Server, environ: dict[str, str], typed: bytes, options: tuple[str, ...], deleted: bool
) -> None:
    server.on("GET /get/digits", Reply([{"batch_job_statuses": [{"status": "running"}, {"status": "succeeded"}]}]))
    server.on("DELETE /delete/digits?keepCache=false", Reply({"message": "deleting digits"}))
    done = in_a_terminal(environ, "delete", "digits", *options, typed=typed)
    assert ("DELETE" in [asked.method for asked in server.asked]) == deleted
    assert ("a running job. Stop and delete?" in done.stdout) == (not options)
    assert (done.returncode == 0) == deleted


def test_environments_are_configured_chosen_and_forgotten(cli: Cli) -> None:
    assert cli("env", "configure", "prod", "--operator-endpoint", "prod.example.com").returncode == 0
    assert cli("env", "default", "prod").stdout == "prod is the default environment now\n"
    listed = cli.json("env", "list")
    assert listed["default_environment"] == "prod"
    assert listed["environments"][1] == {"name": "prod", "operator_endpoint": "https://prod.example.com"}
    assert cli("env", "delete", "prod").returncode == 0
    assert cli("env", "delete", "prod").stderr.startswith("error: there is no environment `prod` in ")


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("version").stdout == f"cortex {cli.json('version')['version']}\n" == cli("--version").stdout


BATCHES = f"/batch/digits/{JOB_ID}/batches?state=failed"


def failed_batch(index: int, items: Any) -> dict[str, Any]:
    return {
        "index": index,
        "state": "failed",
        "attempts": 1,
        "http_status": 500 if index else 0,
        "error": f"broke \x1b[2J at {index}",
        "time": "2026-11-23T13:00:00Z",
        "items": items,
    }


def test_failures_are_a_table_of_reasons_and_shortened_items(server: Server, cli: Cli) -> None:
    batches = [failed_batch(0, [{"text": "é\x1b"}]), failed_batch(1234, ["x" * 100]), failed_batch(1235, [1])]
    page = Reply({"batches": batches, "next_page_token": ""})
    server.on(f"GET {BATCHES}&page_size=3", page)
    done = cli("failures", "digits", JOB_ID, "--limit", "2")
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["BATCH", "ATTEMPTS", "STATUS", "ERROR", "ITEMS"]
    assert re.split("  +", first.strip()) == ["0", "1", "-", "broke \\x1b[2J at 0", '[{"text": "é\\\\x1b"}]']
    assert second.endswith(f'["{"x" * 57}…')
    assert done.stderr == (
        f"there are more: cortex failures digits {JOB_ID} --limit 20\nrun them again: cortex retry digits {JOB_ID}\n"
    )
    server.on(f"GET {BATCHES}&page_size=21", Reply({"batches": [], "next_page_token": ""}))
    assert cli("failures", "digits", JOB_ID).stdout == "no batches failed\n"


def test_all_failures_come_as_the_server_wrote_them(server: Server, cli: Cli) -> None:
    first, last = b'{"batches":[{"items":[1.0,1e400]}],"next_page_token":"7"}', b'{"batches":[],"next_page_token":""}'
    server.on(f"GET {BATCHES}&page_size=1000", Reply(first))
    server.on(f"GET {BATCHES}&page_size=1000&page_token=7", Reply(last))
    done = cli("failures", "digits", JOB_ID, "-o", "json")
    assert done.stdout.encode() == first + b"\n" + last + b"\n"


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
