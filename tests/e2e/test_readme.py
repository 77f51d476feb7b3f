"""The README's own API, word for word: its files, its commands, its Python."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.pages import blocks, follow, shell, steps, write_files
from tests.e2e.system import system
from tests.waiting import wait_for

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.timeout(120)


def test_the_first_api_of_ones_own(tmp_path: Path) -> None:
    write_files(README, tmp_path)
    (tmp_path / "people.json").write_text(next(block.text for block in blocks(README) if block.language == "json"))
    (tmp_path / "client.py").write_text([block.text for block in blocks(README) if block.language == "python"][1])
    found = steps(README)
    first = next(number for number, step in enumerate(found) if "cortex deploy" in step.commands)
    over_http = next(number for number, step in enumerate(found) if "curl" in step.commands)
    with system(tmp_path, options=["--input-root", str(tmp_path)]) as running:
        environ = shell(tmp_path, running)

        def run(*command: str) -> str:
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
            return done.stdout

        output = follow(README.name, found[first:over_http], tmp_path, environ)[0]
        assert "created hello (BatchAPI)" in output
        assert "2 batches succeeded, 0 failed" in output
        logs = run("cortex", "logs", "hello", "latest")
        assert all(f"hello {name}" in logs for name in ("Ada", "Grace", "Katherine"))
        wait_for("the trace to its end", lambda: "on-job-complete" in run("cortex", "trace", "hello", "latest"))
        submit, look = found[over_http].commands.replace("http://127.0.0.1:8888", running.url).splitlines()
        submitted = json.loads(run("bash", "-c", submit))
        looked = json.loads(run("bash", "-c", look.replace("JOB", submitted["job_id"])))
        assert looked["job_status"]["workers"] == 1
        assert run(sys.executable, "client.py").strip() == "succeeded"
        follow(README.name, found[over_http + 1 :], tmp_path, environ)
