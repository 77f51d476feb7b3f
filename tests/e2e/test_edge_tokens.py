"""Who gets in: those with a token of the issuer that is meant for this service and has not expired, over TLS."""

import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from services.common.errors import Category
from services.common.grpc_errors import from_rpc_error
from tests.e2e.system import System, system
from tests.edge_kit import AUDIENCE, ISSUER, Edge, Issuer, certificate, edge, request, trusting
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


class Echo(http.server.ThreadingHTTPServer):
    """A gateway that answers with the headers that reached it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echoing)


class _Echoing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(server: http.server.HTTPServer) -> Iterator[int]:
    """Run a server in a thread; its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("up")) as found:
        found.deploy()
        yield found


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def front(
    running: System, issuer: Issuer, tls: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    directory = tmp_path_factory.mktemp("edge")
    with edge(
        directory,
        tls=tls,
        gateway=[running.url.removeprefix("http://")],
        scheduler=[running.grpc_address],
        **issuer.settings(directory),
    ) as found:
        yield found


@pytest.fixture
def http_client(tls: dict[str, str]) -> urllib3.PoolManager:
    return urllib3.PoolManager(ssl_context=trusting(tls), retries=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_good_token_lets_its_bearer_in(front: Edge, issuer: Issuer, http_client: urllib3.PoolManager) -> None:
    answer = http_client.request("GET", f"{front.url}/get/hello", headers=bearer(issuer.token()))
    assert answer.status == 200
    lines = wait_for("the access log", lambda: [line for line in front.log() if line["path"] == "/get/hello"])
    assert lines[0]["user"] == "ada"


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "expired": ({"exp": time.time() - 120}, 401, "Jwt is expired"),
    "for another service": ({"aud": "other"}, 403, "Audiences in Jwt are not allowed"),
    "for no service": ({"aud": None}, 403, "Audiences in Jwt are not allowed"),
    "of another issuer": ({"iss": "https://elsewhere.example"}, 401, "Jwt issuer is not configured"),
    "that never expires": ({"exp": None}, 401, "Jwt verification fails"),
}


@pytest.mark.parametrize("which", BAD)
def test_a_token_does_not(which: str, front: Edge, issuer: Issuer, http_client: urllib3.PoolManager) -> None:
    claims, status, said = BAD[which]
    answer = http_client.request("GET", f"{front.url}/get", headers=bearer(issuer.token(**claims)))
    assert answer.status == status, answer.data
    assert answer.json()["kind"] == {401: "edge.unauthenticated", 403: "edge.forbidden"}[status]
    assert said.lower() in answer.json()["message"].lower()


def test_a_strangers_signature_does_not(front: Edge, http_client: urllib3.PoolManager) -> None:
    answer = http_client.request("GET", f"{front.url}/get", headers=bearer(Issuer().token()))
    assert answer.status == 401
    assert "verification fails" in answer.json()["message"]


@pytest.mark.parametrize("path", ["/get", "/batch/hello", "/metrics", "/docs", "//healthz/../get", "/healthz/"])
def test_without_a_token_nothing_is_served(path: str, front: Edge, http_client: urllib3.PoolManager) -> None:
    answer = http_client.request("GET", f"{front.url}{path}")
    assert answer.status == 401
    assert answer.json() == {
        "kind": "edge.unauthenticated",
        "message": "Jwt is missing: send a valid token in the header `Authorization: Bearer TOKEN`",
    }


def test_but_the_probes(front: Edge, http_client: urllib3.PoolManager) -> None:
    for path in ("/healthz", "/readyz"):
        assert http_client.request("GET", f"{front.url}{path}").status == 200


def test_over_grpc_it_is_the_same(front: Edge, issuer: Issuer, tls: dict[str, str]) -> None:
    credentials = grpc.ssl_channel_credentials(Path(tls["certificate"]).read_bytes())
    with grpc.secure_channel(front.address("edge"), credentials) as channel:
        stub = batch_service_pb2_grpc.BatchServiceStub(channel)
        answer = stub.ListApis(pb.ListApisRequest(), metadata=(("authorization", f"Bearer {issuer.token()}"),))
        assert [api.name for api in answer.apis] == ["hello"]
        with pytest.raises(grpc.RpcError) as error:
            stub.ListApis(pb.ListApisRequest())
        told = from_rpc_error(error.value)
        assert (told.kind, told.category) == ("edge.unauthenticated", Category.UNAUTHENTICATED)
        assert "Authorization: Bearer TOKEN" in told.message


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # the old versions are the point
def test_tls_is_1_2_at_least_and_offers_http2(front: Edge, tls: dict[str, str]) -> None:
    host, port = front.address("edge").split(":")

    def negotiated(context: ssl.SSLContext) -> tuple[str | None, str | None]:
        with (
            socket.create_connection((host, int(port))) as raw,
            context.wrap_socket(raw, server_hostname=host) as wrapped,
        ):
            return wrapped.version(), wrapped.selected_alpn_protocol()

    context = trusting(tls)
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert negotiated(context) == ("TLSv1.3", "h2")
    context.set_alpn_protocols(["http/1.1"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert negotiated(context) == ("TLSv1.2", "http/1.1")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        negotiated(context)


def test_keys_are_fetched_from_the_issuer(running: System, issuer: Issuer, tls: dict[str, str], tmp_path: Path) -> None:
    class Keys(_Echoing):
        def do_GET(self) -> None:
            self._answer(issuer.jwks().encode())

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["certificate"], tls["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        keys = {"jwks": f"https://localhost:{port}/keys", "ca": tls["certificate"]}
        jwt = {"issuer": ISSUER, "audiences": [AUDIENCE], **keys}
        with edge(tmp_path, jwt=jwt, gateway=[running.url.removeprefix("http://")]) as front:
            answer = request("GET", f"{front.url}/get", headers=bearer(issuer.token()))
            assert answer.status == 200, answer.data
            assert request("GET", f"{front.url}/get").status == 401


def test_while_they_cannot_be_fetched_the_token_is_not_blamed(
    issuer: Issuer, tls: dict[str, str], tmp_path: Path
) -> None:
    jwt = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": "https://127.0.0.1:1/keys", "ca": tls["certificate"]}
    with edge(tmp_path, jwt=jwt) as front, grpc.insecure_channel(front.address("edge")) as channel:
        answer = request("GET", f"{front.url}/get", headers=bearer(issuer.token()))
        assert answer.status == 503
        assert answer.json()["kind"] == "system.unavailable"
        assert "keys of the tokens' issuer cannot be fetched" in answer.json()["message"]
        with pytest.raises(grpc.RpcError) as error:
            batch_service_pb2_grpc.BatchServiceStub(channel).ListApis(
                pb.ListApisRequest(), metadata=(("authorization", f"Bearer {issuer.token()}"),)
            )
        told = from_rpc_error(error.value)
        assert (told.kind, told.message) == ("system.unavailable", answer.json()["message"])


def test_behind_the_edge_nobody_sees_a_token_nor_a_clients_claims(issuer: Issuer, tmp_path: Path) -> None:
    claims = {
        "x-forwarded-for": "10.1.1.1",
        "x-forwarded-proto": "https",
        "x-envoy-internal": "true",
        "x_real_ip": "10.1.1.1",
    }
    with (
        serving(Echo()) as port,
        edge(tmp_path, gateway=[f"127.0.0.1:{port}"], **issuer.settings(tmp_path)) as front,
    ):
        headers = bearer(issuer.token()) | claims
        seen = request("GET", f"{front.url}/get", headers=headers).json()
    assert "authorization" not in seen
    assert seen["x-forwarded-proto"] == "http"
    assert not [name for name in seen if name.startswith("x-envoy") or "_" in name]


def test_what_a_trusted_proxy_says_of_the_client_is_believed(issuer: Issuer, tmp_path: Path) -> None:
    with serving(Echo()) as port, edge(tmp_path, open=True, trusted_hops=1, gateway=[f"127.0.0.1:{port}"]) as front:
        request("GET", f"{front.url}/get", headers={"x-forwarded-for": "192.0.2.7"})
        [line] = wait_for("the access log", front.log)
    assert line["client"] == "192.0.2.7"
