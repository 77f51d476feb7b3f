"""docs/edge.md: its commands and its settings are taken by the real Envoy, and it tells of every setting and answer."""

import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
import yaml

from services.gateway.envoy.replies import REPLIES
from services.gateway.envoy.settings import Settings
from tests.e2e.pages import Step, blocks, steps
from tests.edge_kit import CORTEX, ENVOY, Issuer, bootstrap, certificate

PAGE = Path(__file__).parents[2] / "docs" / "edge.md"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the files that the page names."""
    made = certificate(tmp_path)
    for name, file in (("tls.crt", made["certificate"]), ("tls.key", made["key"])):
        Path(file).rename(tmp_path / name)
    (tmp_path / "jwks.json").write_text(Issuer().jwks())
    return tmp_path


@pytest.mark.parametrize("step", steps(PAGE), ids=lambda step: f"line {step.line}")
def test_its_commands_do_what_it_says(step: Step, files: Path) -> None:
    script = 'envoy() { command envoy --mode validate --log-level error "$@"; }\n' + step.commands
    environ = {**os.environ, "PATH": f"{CORTEX.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", script], cwd=files, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    expected = step.answer or "configuration 'envoy.yaml' OK\n"
    assert done.stdout + done.stderr == expected
    assert done.returncode == (1 if expected.startswith("error:") else 0)


def test_envoy_takes_its_settings(files: Path) -> None:
    [settings] = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]
    file = bootstrap(settings, files)
    text = file.read_text().replace("/etc/ssl/certs/ca-certificates.crt", "tls.crt")  # not every machine has one
    file.write_text(text)
    command: list[Path | str] = [ENVOY, "--mode", "validate", "-c", file]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_tells_of_every_setting_and_no_other() -> None:
    table = PAGE.read_text().partition("| setting | says |")[2].partition("\n\n")[0]
    told = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(told) == sorted(field.name for field in msgspec.structs.fields(Settings))


def test_it_tells_of_the_answers_that_clients_see() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| `(\w+)` \| `([\w.]+)`", PAGE.read_text(), re.MULTILINE)
    told = {(int(status), code, kind) for statuses, code, kind in rows for status in statuses.split(", ")}
    assert told <= {(reply.status, reply.code.name, reply.kind) for reply in REPLIES}
    assert {reply.status for reply in REPLIES} - {status for status, *_ in told} == {
        408,
        413,
        431,
    }  # as the gateway has them
