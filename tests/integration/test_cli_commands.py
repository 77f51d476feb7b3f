"""The command line as a process: what its commands print where, and their exit codes."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.cli_kit import ENDED, Cli, in_a_terminal
from tests.integration.client_kit import JOB_ID, Reply, Server, line


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
