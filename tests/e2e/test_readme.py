"""The README's own API, word for word: its files, its commands, its Python."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.system import CORTEX, system
from tests.waiting import wait_for

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.timeout(120)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def run(command: str, directory: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-ec", command], cwd=directory, env=environ, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_api_of_ones_own(tmp_path: Path) -> None:
    server, client_code = blocks("python")
    (tmp_path / "server.py").write_text(server)
    (tmp_path / "hello.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "people.json").write_text(blocks("json")[0])
    commands = next(block for block in blocks("sh") if "cortex deploy" in block)
    curl = next(block for block in blocks("sh") if "curl" in block).splitlines()
    with system(tmp_path) as running:
        environ = {
            **os.environ,
            "PATH": f"{CORTEX.parent}:{os.environ['PATH']}",
            "CORTEX_CLI_CONFIG_DIR": str(tmp_path / "cli"),
        }
        run(f"cortex env configure local --operator-endpoint {running.url}", tmp_path, environ)
        output = run(commands, tmp_path, environ)
        assert "created hello (BatchAPI)" in output
        assert "2 batches succeeded, 0 failed" in output
        logs = run("cortex logs hello latest", tmp_path, environ)
        assert all(f"hello {name}" in logs for name in ("Ada", "Grace", "Katherine"))
        trace = "cortex trace hello latest"
        wait_for("the trace to its end", lambda: "on-job-complete" in run(trace, tmp_path, environ))
        submitted = json.loads(run(curl[0].replace("http://127.0.0.1:8888", running.url), tmp_path, environ))
        looked = curl[1].replace("http://127.0.0.1:8888", running.url).replace("JOB", submitted["job_id"])
        assert json.loads(run(looked, tmp_path, environ))["job_status"]["workers"] == 1
        (tmp_path / "client.py").write_text(client_code)
        assert run(f"{sys.executable} client.py", tmp_path, environ).strip() == "succeeded"
