"""Clients who reach a system through its edge over HTTP find everything as it is without one, and one trace more."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from websockets.sync.client import connect

from cortex._client import Client
from cortex.environments import Environment
from tests.e2e.system import CONTAINER, System, system
from tests.edge_kit import Edge, edge, request
from tests.ports import unused_port
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

NDJSON = "application/x-ndjson"
SEED_HOST = "ingressgateway-operator.istio-system.svc.cluster.local"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A gateway that serves any name, as in a cluster."""
    with system(tmp_path_factory.mktemp("up"), options=["--insecure"]) as found:
        found.deploy()
        yield found


@pytest.fixture(scope="module")
def front(running: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    [collector] = running.processes("services.collector")
    settings: dict[str, Any] = {
        "open": True,
        "otlp": f"unix://{collector.environ()['CORTEX_COLLECTOR_SOCKET']}",
        "in_cluster": {"listen": "127.0.0.1:0"},
        "observe": "127.0.0.1:0",
        **behind(running),
    }
    with edge(tmp_path_factory.mktemp("edge"), **settings) as found:
        yield found


def behind(running: System) -> dict[str, Any]:
    return {"gateway": [running.url.removeprefix("http://")], "scheduler": [running.grpc_address]}


def post(url: str, body: Any, **headers: str) -> urllib3.BaseHTTPResponse:
    return request("POST", url, body=body, headers=headers)


def test_a_job_runs_and_one_trace_leads_from_the_edge_into_the_container(running: System, front: Edge) -> None:
    client = Client(Environment.of("edge", front.url))
    job_id = client.submit_job("hello", items=[1, 2], batch_size=1, workers=1)["job_id"]
    assert client.wait("hello", job_id)["job_status"]["status"] == "succeeded"

    def spans() -> dict[str, list[dict[str, Any]]]:
        by_service: dict[str, list[dict[str, Any]]] = {}
        for span in client.job_trace("hello", job_id)["spans"]:
            by_service.setdefault(span["service"], []).append(span)
        return by_service

    services = {"cortex-edge", "cortex-gateway", "cortex-scheduler", "cortex-dequeuer"}
    found = wait_for("spans of every part", lambda: spans() if set(spans()) >= services else None)
    [first] = found["cortex-edge"]
    assert first["name"] == "POST"
    assert not first["parent_span_id"]
    assert first["span_id"] in {span["parent_span_id"] for span in found["cortex-gateway"]}


def test_a_clients_own_trace_goes_on_and_its_request_id_stays(front: Edge) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = request(
        "GET", f"{front.url}/get", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "mine"}
    )
    assert answer.headers["x-trace-id"] == trace
    assert answer.headers["x-request-id"] == "mine"
    [line] = wait_for("the access log", lambda: [line for line in front.log() if line["request_id"] == "mine"])
    assert line["trace_id"] == trace
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", "/get", 200, "127.0.0.1")


def test_envoys_own_headers_reach_neither_side(front: Edge) -> None:
    answer = request("GET", f"{front.url}/get", headers={"x-envoy-upstream-rq-timeout-ms": "1"})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith(("x-envoy", "server"))]


class Slow:
    """A submission of lines that are sent when the test says so."""

    def __init__(self, front: Edge, path: str) -> None:
        host, port = front.address("edge").split(":")
        self._socket = socket.create_connection((host, int(port)))
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._socket.sendall(head.encode())

    def send(self, line: str) -> None:
        self._socket.sendall(f"{len(line) + 1:x}\r\n{line}\n\r\n".encode())

    def end(self) -> bytes:
        self._socket.sendall(b"0\r\n\r\n")
        answer = self._socket.recv(65536)
        self._socket.close()
        return answer


def test_a_stream_of_items_arrives_while_it_is_sent(running: System, front: Edge) -> None:
    slow = Slow(front, "/batch/hello?workers=1&batch_size=1")
    before = running.done()["77"]
    slow.send("77")
    wait_for("the first item to be done while the client still sends", lambda: running.done()["77"] > before)
    slow.send("78")
    assert slow.end().startswith(b"HTTP/1.1 200 ")


def test_a_stream_of_more_than_a_submission_may_have_passes(front: Edge) -> None:
    lines = b"".join(b'"%d%s"\n' % (number, b"x" * 200_000) for number in range(60))
    answer = post(f"{front.url}/batch/hello?workers=1&batch_size=1", lines, **{"Content-Type": NDJSON})
    assert answer.status == 200, answer.data
    assert answer.json()["total_batch_count"] == 60


@pytest.mark.parametrize("chunked", [False, True])
def test_a_submission_that_is_too_large_is_told_so(front: Edge, chunked: bool) -> None:
    body = b"[" + b" " * 11_000_000
    answer = post(f"{front.url}/batch/hello", iter([body]) if chunked else body)
    assert answer.status == 413
    assert answer.json()["kind"] == "batchapi.request_size_exceeds_limit"
    assert "10485760 bytes (10 MiB)" in answer.json()["message"]


def test_nothing_of_it_is_sent_by_a_client_that_asks_first(front: Edge) -> None:
    host, port = front.address("edge").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        head = f"POST /batch/hello HTTP/1.1\r\nHost: {host}\r\nContent-Length: 11000000\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_largest_submission_passes(front: Edge) -> None:
    items = ",".join(f'"{"x" * 200_000}"' for _ in range(52))
    body = f'{{"workers":1,"item_list":{{"items":[{items}],"batch_size":1}}}}'.encode()
    assert 10_000_000 < len(body) < 10_485_760
    answer = post(f"{front.url}/batch/hello", body)
    assert answer.status == 200, answer.data


def test_a_job_is_watched_to_its_end_and_its_log_read_on_a_websocket(running: System, front: Edge) -> None:
    command = f"echo 'good morning'; exec {sys.executable} {CONTAINER}"
    running.deploy("talker", container={"command": ["sh", "-c", command]})
    client = Client(Environment.of("edge", front.url))
    job_id = client.submit_job("talker", items=[1], batch_size=1, workers=1)["job_id"]
    *_, last = client.watch_job("talker", job_id)
    assert last["job_status"]["status"] == "succeeded"
    with connect(f"ws://{front.address('edge')}/streamlogs/talker?jobID={job_id}") as log:
        assert "good morning" in "".join(map(str, log))


def test_what_is_not_there_is_told_by_the_gateway(front: Edge) -> None:
    answer = request("GET", f"{front.url}/nothing/here")
    assert answer.status == 404
    assert answer.json()["kind"] == "endpoints.not_found"


@pytest.mark.parametrize("path", ["/batch/a%2fb", "/batch/..%2f..%2fdeploy"])
def test_a_path_with_two_readings_is_refused(front: Edge, path: str) -> None:
    answer = request("GET", f"{front.url}{path}")
    assert answer.status == 400
    assert answer.json()["kind"] == "endpoints.malformed_request"


def test_a_container_submits_the_next_job_at_the_url_that_cortex_gave_it(running: System, front: Edge) -> None:
    body = b'{"workers":1,"item_list":{"items":[1],"batch_size":1}}'
    answer = post(f"http://{front.address('in_cluster')}/batch/hello", body, Host=SEED_HOST)
    assert answer.status == 200, answer.data
    assert running.wait(answer.json()["job_id"])["job_status"]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/batch/hello?jobID=1"),
        ("DELETE", "/batch/hello?jobID=1"),
        ("POST", "/deploy?configFileName=a"),
        ("POST", "/batch/hello/1/retry"),
        ("POST", "/batch/../deploy"),
        ("GET", "/metrics"),
    ],
)
def test_it_may_do_nothing_else_there(front: Edge, method: str, path: str) -> None:
    answer = request(method, f"http://{front.address('in_cluster')}{path}", headers={"Host": SEED_HOST})
    assert answer.status == 403
    assert answer.json()["kind"] == "edge.forbidden"
    assert "POST /batch/<api_name>" in answer.json()["message"]


def test_unless_the_operator_says_so(running: System, tmp_path: Path) -> None:
    pods = {"listen": "127.0.0.1:0", "allow": "everything"}
    with edge(tmp_path, open=True, in_cluster=pods, **behind(running)) as front:
        answer = request("GET", f"http://{front.address('in_cluster')}/get/hello")
        assert answer.status == 200


def test_probes_and_prometheus_find_their_pages_and_nothing_else(front: Edge) -> None:
    here = f"http://{front.address('observe')}"
    assert request("GET", f"{here}/ready").status == 200
    assert b"envoy_cluster_upstream_rq_total" in request("GET", f"{here}/stats/prometheus").data
    assert request("GET", f"{here}/config_dump").status == 404
    assert request("POST", f"{here}/quitquitquit").status == 404


def test_a_client_that_asks_too_often_is_told_to_wait(running: System, tmp_path: Path) -> None:
    with edge(tmp_path, open=True, rate_limit={"per_second": 1, "burst": 3}, **behind(running)) as front:
        answers = [request("GET", f"{front.url}/get") for _ in range(8)]
        assert [answer.status for answer in answers[:3]] == [200, 200, 200]
        refused = next(answer for answer in answers if answer.status != 200)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json() == {
            "kind": "edge.too_many_requests",
            "message": "too many requests come from your address: wait, then try again",
        }
        assert request("GET", f"{front.url}/readyz").status == 200


def test_while_the_gateway_is_away_the_edge_says_what_to_do(tmp_path: Path) -> None:
    with edge(tmp_path, open=True, gateway=["127.0.0.1:1"], scheduler=["127.0.0.1:1"]) as front:
        answer = request("GET", f"{front.url}/get")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["kind"] == "system.unavailable"
        assert "try again in a few seconds" in answer.json()["message"]


def test_a_gateway_that_is_away_is_passed_over(running: System, tmp_path: Path) -> None:
    here = behind(running)
    with edge(tmp_path, open=True, **here | {"gateway": [*here["gateway"], f"127.0.0.1:{unused_port()}"]}) as front:
        answers = [request("GET", f"{front.url}/get").status for _ in range(30)]
    assert set(answers) == {200}


def test_a_gateway_that_comes_back_is_found(running: System, front: Edge) -> None:
    [gateway] = running.processes("services.gateway")
    gateway.kill()
    psutil.wait_procs([gateway])
    wait_for("an answer", lambda: request("GET", f"{front.url}/get").status == 200)
