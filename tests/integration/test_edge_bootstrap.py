"""What `cortex envoy-config` prints: the real Envoy takes it; and what would be open by mistake is refused."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.edge_kit import CORTEX, ENVOY, ISSUER, Issuer, bootstrap, certificate, printed

JWT = {"issuer": ISSUER, "audiences": ["cortex", "batch"], "jwks": f"{ISSUER}/keys", "ca": "edge.crt"}
VARIANTS: dict[str, dict[str, Any]] = {
    "open, on loopback": {"open": True},
    "open, for everyone": {"open": True, "listen": "0.0.0.0:8443", "plaintext": True},
    "keys from an issuer": {"jwt": JWT},
    "keys from an issuer on another port": {"jwt": JWT | {"jwks": "https://127.0.0.1:9443/keys"}},
    "IPv6": {"open": True, "listen": "[::1]:8443", "gateway": ["[::1]:8888"]},
    "names": {"open": True, "gateway": ["localhost:8888"], "scheduler": ["localhost:8889", "127.0.0.2:8889"]},
    "sockets": {"open": True, "gateway": ["unix:///run/g"], "scheduler": ["unix:///run/s"], "otlp": "unix:///run/o"},
    "for pods": {"open": True, "in_cluster": {"listen": "0.0.0.0:8080"}},
    "all for pods": {"open": True, "in_cluster": {"listen": "0.0.0.0:8080", "allow": "everything"}},
    "limited": {"open": True, "rate_limit": {"per_second": 5}},
    "limited with a burst": {"jwt": JWT, "rate_limit": {"per_second": 5, "burst": 100}},
    "traced": {"open": True, "otlp": "collector.example:4317"},
    "observed": {"open": True, "observe": "0.0.0.0:9902"},
    "workers from elsewhere": {"jwt": JWT, "work_stream": True},
    "behind proxies": {"open": True, "trusted_hops": 2},
}


def validated(file: Path) -> None:
    """What Envoy warns of would be refused by one of its next versions, or means nothing."""
    command: list[Path | str] = [ENVOY, "--mode", "validate", "-c", file, "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_envoy_takes_it(variant: str, tmp_path: Path) -> None:
    certificate(tmp_path)
    validated(bootstrap(VARIANTS[variant], tmp_path))


def test_envoy_takes_everything_at_once(tmp_path: Path) -> None:
    everything = {name: value for variant in VARIANTS.values() for name, value in variant.items()}
    for name in ("open", "plaintext"):
        del everything[name]
    validated(bootstrap({**everything, **Issuer().settings(tmp_path), "tls": certificate(tmp_path)}, tmp_path))


def test_an_option_that_makes_no_sense_is_not_passed_over(tmp_path: Path) -> None:
    done = printed({"open": True}, tmp_path, "--rate-limit", "0")
    assert done.returncode == 1
    assert "at rate_limit.per_second: expected `int` >= 1" in done.stderr


def test_options_win_over_the_file(tmp_path: Path) -> None:
    options = ["--listen", "127.0.0.1:1234", "--gateway", "10.0.0.1:1", "--gateway", "10.0.0.2:2"]
    done = printed({"jwt": JWT, "listen": "127.0.0.1:8443"}, tmp_path, "--jwt-audience", "other", *options)
    assert done.returncode == 0, done.stderr
    text = str(yaml.safe_load(done.stdout))
    for said in ("'port_value': 1234", "'10.0.0.1'", "'10.0.0.2'", "'audiences': ['other']", f"'issuer': '{ISSUER}'"):
        assert said in text


REFUSED: dict[str, tuple[Any, str]] = {
    "nobody is said to be let in": ({}, "the edge would serve everyone who reaches it: say whose tokens are good"),
    "both": ({"open": True, "jwt": JWT}, "`jwt` and `open: true` contradict each other"),
    "tokens in the clear": ({"jwt": JWT, "listen": "0.0.0.0:8443"}, "tokens would travel in the clear"),
    "TLS and none": (
        {"open": True, "plaintext": True, "tls": {"certificate": "c", "key": "k"}},
        "contradict each other",
    ),
    "half a certificate": ({"open": True, "tls": {"certificate": "c"}}, "at tls: object missing required field `key`"),
    "any audience": ({"jwt": JWT | {"audiences": []}}, "at jwt.audiences: expected `array` of length >= 1"),
    "keys over http": (
        {"jwt": JWT | {"jwks": "http://a/b"}},
        "at jwt.jwks: 'http://a/b' is neither a file nor an https",
    ),
    "admin for all": ({"open": True, "admin": "0.0.0.0:9901"}, "`admin` must be on loopback, not 0.0.0.0"),
    "no port": ({"open": True, "gateway": ["gateway"]}, "at gateway[0]: 'gateway' is not an address such as"),
    "a bare IPv6": ({"open": True, "listen": "::1:80"}, "at listen: '::1:80': an IPv6 address stands in brackets"),
    "an unknown key": ({"open": True, "port": 8443}, "object contains unknown field `port`"),
    "an unknown word": ({"open": True, "in_cluster": {"listen": "0.0.0.0:1", "allow": "all"}}, "at in_cluster.allow:"),
    "no rate": ({"open": True, "rate_limit": {"per_second": 0}}, "at rate_limit.per_second: expected `int` >= 1"),
    "a number for an address": ({"open": True, "listen": 8443}, "at listen: 8443 is not an address such as"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_told_in_a_sentence(mistake: str, tmp_path: Path) -> None:
    settings, said = REFUSED[mistake]
    done = printed(settings, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(("text", "said"), [("a: [", "is not YAML"), ("[1]", "holds no settings"), ("", "everyone")])
def test_a_file_that_holds_no_settings_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(text)
    done = subprocess.run([CORTEX, "envoy-config", "--settings", file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
