"""The command line and the Python client at an edge that asks for a token."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cortex
from cortex.environments import Environment
from cortex.exceptions import CortexException
from tests.e2e.system import CORTEX, system
from tests.edge_kit import Edge, Issuer, certificate, edge


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def front(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    directory = tmp_path_factory.mktemp("up")
    tls = certificate(directory)
    with system(directory) as running:
        running.deploy()
        behind: dict[str, Any] = {"gateway": [running.url.removeprefix("http://")], "scheduler": [running.grpc_address]}
        with edge(directory / "edge", tls=tls, **behind, **issuer.settings(directory)) as found:
            yield found


@pytest.fixture
def shell(front: Edge, issuer: Issuer, tmp_path: Path) -> dict[str, str]:
    """Somebody's terminal."""
    directory = front.directory.parent
    environ = os.environ | {"CORTEX_CLI_CONFIG_DIR": str(tmp_path), "SSL_CERT_FILE": str(directory / "edge.crt")}
    configure: list[Path | str] = [CORTEX, "env", "configure", "edge", "--operator-endpoint", front.url]
    subprocess.run(configure, env=environ, check=True, capture_output=True)
    return {**environ, "CORTEX_TOKEN": issuer.token()}


def run(shell: dict[str, str], *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [CORTEX, *arguments], env=shell, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_line_carries_a_token(shell: dict[str, str]) -> None:
    one = ("--batch-size", "1", "--workers", "1")
    done = run(shell, "submit", "hello", "--items", "-", *one, "--watch", stdin="[1, 2]")
    assert done.returncode == 0, done.stderr
    streamed = run(shell, "submit", "hello", "--stream", "--items", "-", *one, "-q", stdin="1\n2\n")
    assert streamed.returncode == 0, streamed.stderr


def test_without_one_it_says_how_to_give_it(shell: dict[str, str]) -> None:
    done = run({**shell, "CORTEX_TOKEN": ""}, "get")
    assert done.returncode == 1
    assert "Jwt is missing" in done.stderr
    assert "export CORTEX_TOKEN=" in done.stderr
    assert "(edge.unauthenticated)" in done.stderr


def test_a_token_is_not_sent_in_the_clear(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_TOKEN", issuer.token())
    with pytest.raises(CortexException) as error:
        cortex.Client(Environment.of("far", "http://192.0.2.1:8888")).list_apis()
    assert error.value.kind == "client.token_in_the_clear"
