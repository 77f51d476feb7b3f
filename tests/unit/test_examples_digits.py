"""The digits example by itself: a real server in a process of its own, spoken to as a worker speaks to it."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.digits import items as digits

EXAMPLE = Path(digits.__file__).parent
JOB = "69d6f1b5c0ffee00"


class Server:
    """A worker's view of the example."""

    def __init__(self, port: int, results: Path) -> None:
        self.port = port
        self.results = results / JOB

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "X-Cortex-Job-ID": JOB}
            connection.request(method, path, json.dumps(body).encode() if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    results = tmp_path_factory.mktemp("results")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "server:app", "--fd", str(listener.fileno())]
        environment = os.environ | {"RESULTS_DIR": str(results), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=EXAMPLE, env=environment, pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
    yield Server(port, results)
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def ready(server: Server) -> Server:
    deadline = time.monotonic() + 60
    answers = [server.ask("GET", "/healthz")[0]]
    while answers[-1] != 200 and time.monotonic() < deadline:
        time.sleep(0.05)  # a readiness probe's period
        answers.append(server.ask("GET", "/healthz")[0])
    assert answers[0] == 503  # it answers before it is ready: that is what the probe is for
    assert answers[-1] == 200
    return server


def test_every_item_is_classified_once_although_a_batch_came_twice(ready: Server) -> None:
    items = list(digits.items())
    assert len(items) == 898
    batches = [items[start : start + 50] for start in range(0, len(items), 50)]
    for batch in [*batches, batches[0]]:
        assert ready.ask("POST", "/", batch)[0] == 200
    (ready.results / "another-worker.ndjson").write_text('{"id": 1, "digit": 1}\n')
    (ready.results / "killed-worker.ndjson").write_text('{"id": 3, "di')  # before it could answer
    status, summary = ready.ask("POST", "/on-job-complete", {"message": "job_complete"})
    assert status == 200
    assert summary["items"] == 898
    assert summary["accuracy"] >= 0.9
    assert json.loads((ready.results / "accuracy.json").read_text()) == summary


def test_a_batch_that_makes_no_sense_is_not_answered_with_200(ready: Server) -> None:
    assert ready.ask("POST", "/", [{"id": 1}])[0] == 422
    assert ready.ask("POST", "/", [{"id": 1, "pixels": [0] * 63}])[0] == 422
