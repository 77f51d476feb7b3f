"""Which deployment is meant: `cli.yaml` as we and as Cortex's CLI write it."""

from pathlib import Path

import pytest
import yaml

import cortex
from cortex import environments
from cortex.environments import Environment
from cortex.exceptions import CortexException, NotFound


@pytest.fixture(autouse=True)
def cli_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORTEX_CLI_CONFIG_DIR", str(tmp_path / "client"))
    return tmp_path / "client" / "cli.yaml"


def write(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)


def test_without_any_file_it_is_the_deployment_on_this_machine() -> None:
    assert cortex.client().env == {"name": "local", "operator_endpoint": "http://127.0.0.1:8888"}
    assert cortex.env_list() == {
        "default_environment": "local",
        "environments": [{"name": "local", "operator_endpoint": "http://127.0.0.1:8888"}],
    }


def test_without_the_variable_the_file_is_in_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CORTEX_CLI_CONFIG_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environments.config_path() == tmp_path / ".cortex" / "cli.yaml"


def test_the_file_in_a_container_is_understood(cli_yaml: Path) -> None:
    text = "{default_environment: c, environments: [{name: c, operator_endpoint: 'http://10.0.0.1:1'}]}"
    write(cli_yaml, text)
    assert cortex.client().env == {"name": "c", "operator_endpoint": "http://10.0.0.1:1"}


def test_a_new_client_is_kept_and_the_first_is_the_default(cli_yaml: Path) -> None:
    cortex.new_client("one", "https://one.example.com/")
    cortex.new_client("two", "two.example.com")
    assert yaml.safe_load(cli_yaml.read_text()) == {
        "default_environment": "one",
        "environments": [
            {"name": "one", "operator_endpoint": "https://one.example.com"},
            {"name": "two", "operator_endpoint": "https://two.example.com"},
        ],
    }
    assert cortex.client("two").env_name == "two"
    cortex.env_delete("one")
    assert cortex.client().env_name == "two"  # the only one left is the one that is meant


def test_what_cortex_wrote_beside_the_environments_is_kept(cli_yaml: Path) -> None:
    write(
        cli_yaml, "telemetry: false\ndefault_environment: aws\nenvironments:\n- name: aws\n  operator_endpoint: a.b\n"
    )
    cortex.new_client("local", "localhost:8888")
    written = yaml.safe_load(cli_yaml.read_text())
    assert written["telemetry"] is False
    assert written["environments"][1] == {"name": "local", "operator_endpoint": "http://localhost:8888"}


def test_an_unknown_name_is_told_with_those_that_are_known(cli_yaml: Path) -> None:
    cortex.new_client("one", "https://one.example.com")
    with pytest.raises(NotFound, match=r"no environment `nope` .*there is: `one`.*cortex env configure nope"):
        cortex.client("nope")
    with pytest.raises(NotFound, match="no environment `nope`"):
        cortex.env_delete("nope")


def test_several_without_a_default_are_not_guessed_from(cli_yaml: Path) -> None:
    write(cli_yaml, "environments: [{name: a, operator_endpoint: a.b}, {name: b, operator_endpoint: b.c}]")
    with pytest.raises(NotFound, match=r"names no default environment; choose one of `a`, `b`"):
        cortex.client()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must be a map with a list `environments`"),
        ("environments: 3", "must be a map with a list `environments`"),
        ("environments: [{operator_endpoint: x}]", r"environments\[0\] has no `name`"),
        ("environments: [{name: a, operator_endpoint: 'ftp://x'}]", "environment `a`: 'ftp://x' is not an endpoint"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_broken_file_is_told_with_its_path(cli_yaml: Path, text: str, message: str) -> None:
    write(cli_yaml, text)
    with pytest.raises(CortexException, match=message) as caught:
        cortex.client()
    assert str(cli_yaml) in caught.value.message or "environment `a`" in caught.value.message


def test_a_directory_that_cannot_be_written_is_told(cli_yaml: Path) -> None:
    cli_yaml.parent.write_text("not a directory")
    assert cortex.client().env_name == "local"
    with pytest.raises(CortexException, match="set CORTEX_CLI_CONFIG_DIR to a writable directory"):
        cortex.new_client("one", "https://one.example.com")


@pytest.mark.parametrize("endpoint", ["", "http://", "http://host:notaport", "http://host:99999", "ftp://host"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(CortexException) as caught:
        Environment.of("x", endpoint)
    assert caught.value.kind == "client.invalid_environment"
