"""The journey of a job with failing batches: look at them, mend the cause, run them again."""

import json
import subprocess
from pathlib import Path

import pytest
import urllib3

from tests.e2e.system import CORTEX, System, system

pytestmark = pytest.mark.timeout(120)

ITEMS = ["1.0", "12345678901234567890", '{"b":1,"a":2,"b":3}', "1e400", '"\\u00e9\\ud83d é"', "-0", "[ 1 ]"]
ECHO = """
import http.server, os, pathlib
notes = pathlib.Path(os.environ["NOTES"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        broken = (b'"b"' in body or b"1e400" in body) and not (notes / "mended").exists()
        if self.path == "/" and not broken:
            with (notes / self.headers["X-Cortex-Job-ID"]).open("ab") as file:
                file.write(body + b"\\n")
        self.send_response(503 if broken else 200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["CORTEX_PORT"])), Handler).serve_forever()
"""


def cortex(running: System, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (running.notes.parent / "cli.yaml").write_text(f"environments: [{{name: e, operator_endpoint: '{running.url}'}}]")
    environ = {"CORTEX_CLI_CONFIG_DIR": str(running.notes.parent)}
    return subprocess.run([CORTEX, *arguments], capture_output=True, text=True, env=environ, timeout=40, check=False)


def test_failed_batches_are_shown_and_run_again_once_the_cause_is_mended(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(
            container={"command": ["python3", "-c", ECHO], "env": {"NOTES": str(running.notes), "P": "$(CORTEX_PORT)"}}
        )
        body = (
            f'{{"workers": 1, "config": {{"k": 1.50}}, "item_list": {{"batch_size": 1, "items": [{",".join(ITEMS)}]}}}}'
        )
        answer = urllib3.request("POST", f"{running.url}/batch/hello", body=body.encode())
        old = answer.json()["job_id"]
        assert running.wait(old)["job_status"]["status"] == "completed_with_failures"

        url = f"{running.url}/batch/hello/{old}/batches?state=failed"
        page = urllib3.request("GET", url)
        assert [batch["index"] for batch in page.json()["batches"]] == [2, 3]
        assert {(batch["attempts"], batch["http_status"]) for batch in page.json()["batches"]} == {(1, 503)}
        assert all(f'"items":[{ITEMS[index]}]'.encode() in page.data for index in (2, 3))
        shown = cortex(running, "failures", "hello", old)
        assert shown.returncode == 0, shown.stderr
        assert [line.split()[:3] for line in shown.stdout.splitlines()[1:]] == [["2", "1", "503"], ["3", "1", "503"]]

        (running.notes / "mended").touch()
        retried = cortex(running, "retry", "hello", old, "--workers", "2", "--watch", "-o", "json")
        assert retried.returncode == 0, retried.stderr
        submitted, *_, last = map(json.loads, retried.stdout.splitlines())
        new = submitted["job_id"]
        assert (submitted["retry_of"], submitted["workers"], submitted["config"]) == (old, 2, {"k": 1.5})
        assert last["job_status"]["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": 2, "failed": 0}
        assert running.job(old)["retried_by"] == new
        seen = sorted((running.notes / new).read_text().splitlines())
        assert seen == sorted(f"[{ITEMS[index]}]" for index in (2, 3)), "byte for byte, each once"
        assert list(running.client.failed_batches("hello", new)) == []
        again = cortex(running, "retry", "hello", old)
        assert (again.returncode, "job.already_retried" in again.stderr) == (1, True)
