"""The Python client over real HTTP: what it asks, what it gives back, and how failures look."""

import json
import socket
import ssl
import threading
from pathlib import Path

import pytest

import cortex
from cortex import operator
from cortex.environments import Environment
from cortex.exceptions import CortexException, NotFound, Unreachable
from cortex.fields import FileSelection
from tests.edge_kit import certificate
from tests.integration.client_kit import JOB_ID, Reply, Server, job_status, line

WATCH = f"GET /batch/digits?jobID={JOB_ID}&watch=true"


@pytest.fixture
def client(server: Server) -> cortex.Client:
    return cortex.Client(Environment.of("test", server.url))


def test_deploying_sends_the_file_as_a_form_with_its_absolute_path(
    server: Server, client: cortex.Client, tmp_path: Path
) -> None:
    file = tmp_path / "cortex.yaml"
    file.write_bytes(b"- name: digits\n")
    target = f"/deploy?force=false&configFileName={str(file).replace('/', '%2F')}"
    results = [
        {"api": {}, "message": "created digits (BatchAPI)", "error": ""},
        {"api": {}, "message": "", "error": ""},
    ]
    server.on(f"POST {target}", Reply(results))
    assert client.deploy_from_file(file) == results[0]
    assert client.deploy_all_from_file(file) == results
    asked = server.asked[0]
    assert asked.headers["Content-Type"].startswith("multipart/form-data")
    assert b'name="config"' in asked.body
    assert b"- name: digits\n" in asked.body
    assert asked.headers["CortexAPIVersion"] == cortex.__version__


def test_deploying_a_dictionary_sends_it_as_a_list_of_one(
    server: Server, client: cortex.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = f"/deploy?force=true&configFileName={str(tmp_path / 'api_spec').replace('/', '%2F')}"
    server.on(f"POST {target}", Reply([{"api": {}, "message": "created digits (BatchAPI)", "error": ""}]))
    assert client.deploy({"name": "digits", "note": "é"})["message"] == "created digits (BatchAPI)"
    assert "- name: digits\n  note: é\n".encode() in server.asked[0].body


def test_an_api_that_was_not_deployed_is_an_error(server: Server, client: cortex.Client, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    server.on(
        f"POST /deploy?force=false&configFileName={str(file).replace('/', '%2F')}",
        Reply([{"api": None, "message": "", "error": "no room"}]),
    )
    with pytest.raises(CortexException, match="no room"):
        client.deploy_from_file(file)
    with pytest.raises(CortexException, match=r"cannot read .*/nothing: No such file or directory"):
        client.deploy_from_file(tmp_path / "nothing")


def test_what_is_asked_and_what_is_given_back(server: Server, client: cortex.Client) -> None:
    server.on("GET /get", Reply([{"metadata": {"name": "digits"}}]))
    server.on("GET /get/a%2Fb", Reply([{"metadata": {"name": "a/b"}}]))
    server.on("DELETE /delete/digits?keepCache=true", Reply({"message": "deleting digits"}))
    server.on(f"GET /batch/digits?jobID={JOB_ID}", Reply(job_status()))
    server.on(f"DELETE /batch/digits?jobID={JOB_ID}", Reply({"message": "stopped"}))
    server.on(f"GET /batch/digits/{JOB_ID}/trace", Reply({"trace_id": "t", "spans": []}))
    assert client.list_apis() == [{"metadata": {"name": "digits"}}]
    assert client.get_api("a/b") == {"metadata": {"name": "a/b"}}
    assert client.get_job("digits", JOB_ID) == job_status()
    assert client.job_trace("digits", JOB_ID) == {"trace_id": "t", "spans": []}
    client.delete("digits", keep_cache=True)
    client.stop_job("digits", JOB_ID)
    assert [asked.method for asked in server.asked[-2:]] == ["DELETE", "DELETE"]


def test_a_job_is_submitted_as_the_values_that_were_given(server: Server, client: cortex.Client) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    items = (number for number in (1, 12345678901234567890))
    job = client.submit_job("digits", items, batch_size=2, workers=3, config={"a": None}, timeout=60)
    assert job == {"job_id": JOB_ID}
    assert server.asked[0].body == (
        b'{"workers":3,"timeout":60,"config":{"a":null},"item_list":{"items":[1,12345678901234567890],"batch_size":2}}'
    )
    assert server.asked[0].headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (404, "job.not_found", NotFound),
        (400, "resources.api_not_deployed", NotFound),
        (400, "job.job_is_not_in_progress", CortexException),
        (503, "system.unavailable", Unreachable),
    ],
)
def test_errors_are_raised_as_the_server_put_them(
    server: Server, client: cortex.Client, status: int, kind: str, expected: type[CortexException]
) -> None:
    server.on("GET /get/digits", Reply({"kind": kind, "message": "so it is"}, status))
    with pytest.raises(CortexException, match="so it is") as caught:
        client.get_api("digits")
    assert type(caught.value) is expected
    assert caught.value.kind == kind


def test_an_answer_that_is_not_ours_is_told_with_its_status(server: Server, client: cortex.Client) -> None:
    server.on("GET /get", Reply(b"<html>Bad Gateway</html>\nmore", 502))
    with pytest.raises(CortexException, match=r"environment `test`\) answered status 502: <html>Bad Gateway</html>$"):
        client.list_apis()


def test_a_web_page_is_no_answer(server: Server, client: cortex.Client) -> None:
    server.on("GET /get", Reply(b"<html>Welcome</html>", content_type="text/html; charset=utf-8"))
    with pytest.raises(CortexException, match=r"environment `test`\) is a web page: is the port right\?$"):
        client.list_apis()


def test_where_nobody_answers_the_error_says_where_and_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            cortex.Client(Environment.of("local", url)).list_apis()
    assert caught.value.message == f"nothing answers at {url}: is `cortex up` running? (environment `local`)"


def test_a_port_that_speaks_something_else_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        client = cortex.Client(Environment.of("test", f"http://127.0.0.1:{other.getsockname()[1]}"))

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\x00\x00\x18\x04\x00 I am gRPC\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(
            CortexException, match=r"environment `test`\) does not speak HTTP; is that the port of gRPC"
        ):
            client.list_apis()
        thread.join()


def test_a_job_is_watched_to_its_end(server: Server, client: cortex.Client) -> None:
    updates = [job_status(done=1), job_status(done=9), job_status("succeeded", done=10)]
    server.on(WATCH, Reply(lines=[line(update) for update in updates]))
    assert list(client.watch_job("digits", JOB_ID)) == updates
    assert client.wait("digits", JOB_ID) == updates[-1]


def test_lines_may_come_in_pieces_and_with_empty_ones_between(server: Server, client: cortex.Client) -> None:
    whole = line(job_status(done=1)) + b"\n" + line(job_status("succeeded", done=10))
    server.on(WATCH, Reply(lines=[whole[:50], whole[50:700], whole[700:]]))
    assert [each["job_status"]["status"] for each in client.watch_job("digits", JOB_ID)] == ["running", "succeeded"]


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(lines=[line(job_status(done=3))], broken=True),
        Reply(lines=[line(job_status(done=3))]),
        Reply(lines=[line(job_status(done=3)), line({"kind": "system.unavailable", "message": "restarting"})]),
    ],
)
def test_a_server_that_goes_away_in_the_middle_is_asked_again(
    server: Server, client: cortex.Client, trouble: Reply
) -> None:
    away = Reply({"kind": "system.unavailable", "message": "restarting"}, 503)
    server.on(WATCH, trouble, away, Reply(lines=[line(job_status("succeeded", done=10))]))
    assert client.wait("digits", JOB_ID)["job_status"]["status"] == "succeeded"
    assert len(server.asked) == 3


def test_a_server_whose_scheduler_is_away_from_the_beginning_is_waited_for(
    server: Server, client: cortex.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Reply({"kind": "system.unavailable", "message": "not now"}, 503)
    server.on(WATCH, away, Reply(lines=[line(job_status("succeeded", done=10))]))
    assert client.wait("digits", JOB_ID)["job_status"]["status"] == "succeeded"
    server.on(WATCH, away)
    monkeypatch.setattr(operator, "PATIENCE_S", 0.1)
    with pytest.raises(Unreachable, match="not now"):
        client.wait("digits", JOB_ID)


def test_a_proxy_that_finds_no_server_is_an_error_at_once(server: Server, client: cortex.Client) -> None:
    server.on(WATCH, Reply(b"Bad Gateway", 502))
    with pytest.raises(Unreachable, match="Bad Gateway"):
        client.wait("digits", JOB_ID)
    assert len(server.asked) == 1


def test_a_connection_that_breaks_in_the_handshake_of_tls_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls["certificate"], tls["key"])
    monkeypatch.setenv("SSL_CERT_FILE", tls["certificate"])
    with socket.create_server(("127.0.0.1", 0)) as edge:

        def answer() -> None:
            for _ in range(2):
                connection, _ = edge.accept()
                connection.recv(65536)
                connection.close()
            connection, _ = edge.accept()
            with context.wrap_socket(connection, server_side=True) as trusted:
                trusted.recv(65536)
                trusted.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        client = cortex.Client(Environment.of("test", f"https://127.0.0.1:{edge.getsockname()[1]}"))
        assert client.list_apis() == []
        thread.join()


def test_what_only_looks_is_asked_again_when_the_connection_breaks(server: Server, client: cortex.Client) -> None:
    server.on(WATCH, Reply(none=True), Reply(none=True), Reply(lines=[line(job_status("succeeded", done=10))]))
    assert client.wait("digits", JOB_ID)["job_status"]["status"] == "succeeded"


def test_a_submission_is_sent_again_under_the_same_key_when_the_connection_breaks(
    server: Server, client: cortex.Client
) -> None:
    server.on("POST /batch/digits", Reply(none=True), Reply({"job_id": JOB_ID}))
    assert client.submit_job("digits", items=[1], batch_size=1, workers=1) == {"job_id": JOB_ID}
    first, second = (asked.headers["Idempotency-Key"] for asked in server.asked)
    assert first == second
    client.submit_job("digits", items=[1], batch_size=1, workers=1)
    assert server.asked[2].headers["Idempotency-Key"] != first
    client.submit_job("digits", items=[1], batch_size=1, workers=1, idempotency_key="mine")
    assert server.asked[3].headers["Idempotency-Key"] == "mine"
    client.submit_job("digits", items=[1], batch_size=1, workers=1, idempotency_key="")
    assert server.asked[4].headers["Idempotency-Key"] == "", "the server refuses it"


def test_a_change_is_never_sent_twice(server: Server, client: cortex.Client) -> None:
    server.on(f"DELETE /batch/digits?jobID={JOB_ID}", Reply(none=True))
    with pytest.raises(Unreachable, match="broke the connection"):
        client.stop_job("digits", JOB_ID)
    assert len(server.asked) == 1


def test_trouble_in_the_middle_of_a_log_is_raised(server: Server, client: cortex.Client) -> None:
    entry = {"time": "t", "worker": 0, "container": "api", "message": '{"kind": 1}'}
    trouble = b'{"kind":"ledger.failed","message":"broken"}\n'
    server.on(f"GET /batch/digits/{JOB_ID}/logs?follow=true", Reply(lines=[line(entry), trouble]))
    log = client.job_logs("digits", JOB_ID, follow=True)
    assert next(log) == entry
    with pytest.raises(CortexException, match="broken") as caught:
        next(log)
    assert caught.value.kind == "ledger.failed"


def test_failed_batches_are_asked_for_page_by_page_as_they_are_needed(server: Server, client: cortex.Client) -> None:
    path = f"GET /batch/digits/{JOB_ID}/batches?state=failed&page_size=1000"
    server.on(path, Reply({"batches": [{"index": 0}, {"index": 1}], "next_page_token": "2"}))
    server.on(f"{path}&page_token=2", Reply({"batches": [], "next_page_token": "9"}))  # a page may be empty
    server.on(f"{path}&page_token=9", Reply({"batches": [{"index": 9}], "next_page_token": ""}))
    batches = client.failed_batches("digits", JOB_ID)
    assert [next(batches)["index"], next(batches)["index"]] == [0, 1]
    assert len(server.asked) == 1
    assert [batch["index"] for batch in batches] == [9]


def test_a_job_is_retried(server: Server, client: cortex.Client) -> None:
    server.on(f"POST /batch/digits/{JOB_ID}/retry", Reply({"job_id": "1", "retry_of": JOB_ID}))
    assert client.retry_job("digits", JOB_ID, workers=2) == {"job_id": "1", "retry_of": JOB_ID}
    assert client.retry_job("digits", JOB_ID)["job_id"] == "1"
    assert [asked.body for asked in server.asked] == [b'{"workers": 2}', b"{}"]


def test_all_that_a_submission_may_ask_for_is_sent(server: Server, client: cortex.Client) -> None:
    server.on("POST /batch/digits", Reply({"job_id": JOB_ID}))
    client.submit_job(
        "digits",
        delimited_files={"s3_paths": ["s3://b/in/"], "includes": ["**.json"]},
        batch_size=10,
        workers={"batches_per_worker": 100, "max_workers": 8},
        retries={"max_attempts": 3, "backoff_seconds": 0.5, "on": [503]},
        split_failed=True,
        results={"s3_path": "s3://b/out/"},
        max_failed_percent=2.5,
        webhook={"url": "http://127.0.0.1/hook", "secret": "s"},
        sqs_dead_letter_queue=None,
    )
    assert json.loads(server.asked[0].body) == {
        "delimited_files": {"s3_paths": ["s3://b/in/"], "includes": ["**.json"], "batch_size": 10},
        "workers": {"batches_per_worker": 100, "max_workers": 8},
        "retries": {"max_attempts": 3, "backoff_seconds": 0.5, "on": [503]},
        "split_failed": True,
        "results": {"s3_path": "s3://b/out/"},
        "max_failed_percent": 2.5,
        "webhook": {"url": "http://127.0.0.1/hook", "secret": "s"},
    }


def test_a_field_that_no_job_has_is_a_mistake_of_the_caller(client: cortex.Client) -> None:
    with pytest.raises(TypeError, match="a job has no field retrys"):
        client.submit_job("digits", [1], batch_size=1, workers=1, retrys={})  # type: ignore[call-arg]  # so is meant


def test_a_dry_run_gives_the_selected_files_or_raises_what_is_wrong(server: Server, client: cortex.Client) -> None:
    selection: FileSelection = {"s3_paths": ["s3://b/"], "batch_size": 1}
    text = Reply(b"s3://b/1\ns3://b/2\n... and 5 more\nvalidations passed\n", content_type="text/plain")
    server.on("POST /batch/digits?dryRun=true", text)
    assert client.dry_run("digits", workers=1, file_path_lister=selection) == ["s3://b/1", "s3://b/2"]
    server.on("POST /batch/digits?dryRun=true", Reply(b"there is no bucket b\n", 400, content_type="text/plain"))
    with pytest.raises(CortexException, match=r"^there is no bucket b$") as caught:
        client.dry_run("digits", workers=1, file_path_lister=selection)
    assert caught.value.kind == "client.dry_run"


def test_a_running_job_is_changed(server: Server, client: cortex.Client) -> None:
    server.on(f"PATCH /batch/digits?jobID={JOB_ID}", Reply(job_status()))
    assert client.scale_job("digits", JOB_ID, 5) == job_status()
    client.pause_job("digits", JOB_ID)
    client.resume_job("digits", JOB_ID)
    client.update_job("digits", JOB_ID, workers=2, paused=False)
    bodies = [json.loads(asked.body) for asked in server.asked]
    assert bodies == [{"workers": 5}, {"paused": True}, {"paused": False}, {"workers": 2, "paused": False}]


def test_results_go_on_where_they_broke_off(server: Server, client: cortex.Client) -> None:
    told = [b'{"batch":0,"reply":[0]}\n', b'{"batch":2,"reply":{"kind":1}}\n', b'{"batch":3,"reply":"three"}\n']
    path = f"GET /batch/digits/{JOB_ID}/results?follow=true"
    server.on(path, Reply(lines=told[:2], broken=True))
    server.on(f"{path}&first=3", Reply({}, 503), Reply(lines=told[2:]))
    found = [(each["batch"], each["reply"]) for each in client.job_results("digits", JOB_ID, follow=True)]
    assert found == [(0, [0]), (2, {"kind": 1}), (3, "three")]


def test_a_job_without_results_is_an_error_and_errors_are_streamed(server: Server, client: cortex.Client) -> None:
    refusal = {"kind": "job.results_not_kept", "message": "no results are kept"}
    server.on(f"GET /batch/digits/{JOB_ID}/results", Reply(refusal, 400))
    server.on(f"GET /batch/digits/{JOB_ID}/errors", Reply(lines=[line({"index": 3}), line({"index": 5})]))
    with pytest.raises(CortexException, match="no results are kept"):
        list(client.job_results("digits", JOB_ID))
    assert [each["index"] for each in client.job_errors("digits", JOB_ID)] == [3, 5]
