"""The real Envoy with a bootstrap that `cortex envoy-config` has printed; and an issuer of tokens, a certificate."""

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
import urllib3
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.ports import unused_port
from tests.waiting import gone_within, wait_for

ENVOY = Path(sys.executable).with_name("envoy")
CORTEX = Path(sys.executable).with_name("cortex")
PATIENCE_S = 30
Change = Callable[[dict[str, Any]], None]
ISSUER, AUDIENCE = "https://login.example.org", "cortex"


def request(method: str, url: str, **more: Any) -> urllib3.BaseHTTPResponse:
    """A request that is sent once and waited for: urllib3's own patience is 3 s, which a busy machine may take."""
    return urllib3.request(method, url, **{"timeout": PATIENCE_S, "retries": False, **more})


def printed(settings: Mapping[str, Any], directory: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """`cortex envoy-config` with a settings file."""
    file = directory / "edge.yaml"
    file.write_text(yaml.safe_dump(dict(settings)))
    command: list[Path | str] = [CORTEX, "envoy-config", "--settings", file, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bootstrap(settings: Mapping[str, Any], directory: Path) -> Path:
    """A bootstrap file."""
    done = printed(settings, directory)
    assert done.returncode == 0, done.stderr
    file = directory / "envoy.yaml"
    file.write_text(done.stdout)
    return file


class Edge:
    """A running Envoy. Its ports are free ones wherever the settings say 0."""

    def __init__(self, directory: Path, settings: Mapping[str, Any], change: Change) -> None:
        self.directory = directory
        self._log = directory / "envoy.log"
        self._out = directory / "access.log"
        admin = unused_port()
        chosen = {"listen": "127.0.0.1:0", "admin": f"127.0.0.1:{admin}", **settings}
        file = bootstrap(chosen, directory)
        config = yaml.safe_load(file.read_text())
        change(config)
        file.write_text(yaml.safe_dump(config))
        with self._log.open("ab") as log, self._out.open("ab") as out:
            command: list[Path | str] = [ENVOY, "-c", file, "--concurrency", "2", "--disable-hot-restart"]
            self.process = subprocess.Popen(command, stdout=out, stderr=log)
        self.admin = f"http://127.0.0.1:{admin}"
        self._scheme = "https" if "tls" in settings else "http"
        try:
            wait_for("Envoy", self._ready)
            self._ports = self._listening()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{self._scheme}://{self.address('edge')}"

    def address(self, listener: str) -> str:
        """`edge`, `in_cluster` or `observe`."""
        return f"127.0.0.1:{self._ports[listener]}"

    def log(self) -> list[dict[str, Any]]:
        """The access log's lines. Envoy writes them every second, and at its end."""
        return [json.loads(line) for line in self._out.read_text().splitlines()]

    def stat(self, name: str) -> int:
        """One of Envoy's counters and gauges."""
        text = request("GET", f"{self.admin}/stats?filter=^{name}$").data.decode()
        return int(text.partition(": ")[2] or 0)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        if not gone_within(self.process.pid, 10):
            self.process.kill()
        self.process.wait()

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return request("GET", f"{self.admin}/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _listening(self) -> dict[str, int]:
        answer = request("GET", f"{self.admin}/listeners?format=json").json()
        return {
            found["name"]: found["local_address"]["socket_address"]["port_value"]
            for found in answer["listener_statuses"]
        }


@contextmanager
def edge(directory: Path, change: Change = lambda _: None, **settings: Any) -> Iterator[Edge]:
    """An edge for one test; `change` is done to its bootstrap."""
    directory.mkdir(exist_ok=True)
    running = Edge(directory, settings, change)
    try:
        yield running
    finally:
        running.close()


class Issuer:
    """Somebody who signs users' tokens."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> str:
        """The public key, as an issuer serves it."""
        key = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**key, "kid": "1", "alg": "RS256", "use": "sig"}]})

    def token(self, **claims: Any) -> str:
        """A good token, but for the claims given; None leaves one out."""
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + 3600}
        given = {name: value for name, value in {**good, **claims}.items() if value is not None}
        return jwt.encode(given, self._key, algorithm="RS256", headers={"kid": "1"})

    def settings(self, directory: Path) -> dict[str, Any]:
        """Settings that trust this issuer."""
        file = directory / "jwks.json"
        file.write_text(self.jwks())
        return {"jwt": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": str(file)}}


def certificate(directory: Path) -> dict[str, str]:
    """A self-signed certificate for this machine, as the setting `tls`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = {"certificate": directory / "edge.crt", "key": directory / "edge.key"}
    pem = serialization.Encoding.PEM
    files["certificate"].write_bytes(made.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8
    files["key"].write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    return {name: str(file) for name, file in files.items()}


def trusting(tls: Mapping[str, str]) -> ssl.SSLContext:
    """What a client needs who trusts that certificate."""
    return ssl.create_default_context(cafile=tls["certificate"])
