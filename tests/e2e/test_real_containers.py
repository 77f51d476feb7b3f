"""`cortex up --runtime podman|docker`: a user's jobs in real containers, and nothing of them left at any end."""

import signal
from pathlib import Path

import pytest

from tests.e2e.system import CONTAINER, System, system
from tests.engines import RealEngine
from tests.images import IMAGE, PYTHON
from tests.waiting import wait_for

CHAINED = "http://ingressgateway-operator.istio-system.svc.cluster.local/batch/hello"
CHAIN = f"""
import http.server, json, signal, sys, urllib.request
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        items = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/" and b"chain" in items:
            body = b'{{"workers": 1, "item_list": {{"items": ["last"], "batch_size": 1}}}}'
            request = urllib.request.Request("{CHAINED}", body, {{"Content-Type": "application/json"}})
            print("chained", json.load(urllib.request.urlopen(request))["job_id"], flush=True)
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""

pytestmark = pytest.mark.timeout(180)


def deploy(running: System, **container: object) -> None:
    """The journeys' container in its image: what it notes is in /mnt."""
    env = {"NOTES": "/mnt", "WHERE": "8080"}
    command = [PYTHON, "-c", CONTAINER.read_text()]
    running.deploy(container={"image": IMAGE, "command": command, "env": env, **container})


def test_jobs_run_one_submits_another_and_a_container_that_is_killed_is_started_again(
    engine: RealEngine, tmp_path: Path
) -> None:
    with system(tmp_path, engine.environ, ["--runtime", engine.program]) as running:
        deploy(running, command=[PYTHON, "-c", CHAIN])
        first = running.wait(running.submit(["chain", 2, 3], workers=2))["job_status"]
        assert (first["status"], first["batch_counts"]["succeeded"]) == ("succeeded", 3)
        chained = running.client.get_api("hello")["batch_job_statuses"][0]["job_id"]
        assert chained < first["job_id"]  # newer
        assert running.wait(chained)["job_status"]["status"] == "succeeded"
        wait_for("the workers are gone", lambda: not engine.containers())
        deploy(running)
        job_id = running.submit([{"sleep": 1}] * 4)
        wait_for("a container runs", lambda: running.job(job_id)["batch_counts"]["leased"])
        engine("kill", "--signal=KILL", engine.container("api"))
        assert running.wait(job_id)["job_status"]["batch_counts"]["succeeded"] == 4


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_container_is_left_when_the_system_ends(engine: RealEngine, tmp_path: Path, end: signal.Signals) -> None:
    with system(tmp_path, engine.environ, ["--runtime", engine.program]) as running:
        deploy(running)
        job_id = running.submit([{"sleep": 30}])
        wait_for("a batch is in a container", lambda: running.job(job_id)["batch_counts"]["leased"])
        assert engine.containers()
        running.process.send_signal(end)
        running.process.wait()
        wait_for("no container is left", lambda: not engine.containers())


def test_an_image_that_is_not_there_is_told_and_counted(engine: RealEngine, tmp_path: Path) -> None:
    with system(tmp_path, engine.environ, ["--runtime", engine.program]) as running:
        deploy(running, image="localhost/no-such-image:1")
        job_id = running.submit([1])
        wait_for("that is told", lambda: "localhost/no-such-image:1" in running.job(job_id).get("reason", ""))
        assert running.job(job_id)["worker_counts"] == {"err_image_pull": 1}
        running.client.stop_job("hello", job_id)
        assert running.wait(job_id)["job_status"]["status"] == "stopped"
