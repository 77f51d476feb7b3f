"""`CORTEX_AUTH=aws-iam`: the gateway asks a real STS who a client is."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import urllib3
from botocore.credentials import Credentials
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from services.gateway.settings import AwsAuth
from tests.integration.gateway_harness import JOB_ID, Gateway, running
from tests.integration.sts_kit import ACCOUNT, Sts, sts

STRANGER = Credentials("AKIAUNKNOWN", "secret")


@pytest.fixture(scope="module")
def real_sts() -> Iterator[Sts]:
    with sts() as it:
        yield it


def auth(real_sts: Sts, **changes: Any) -> AwsAuth:
    return replace(AwsAuth(frozenset({ACCOUNT}), (), real_sts.url), **changes)


@pytest.fixture
async def gateway(tmp_path: Path, real_sts: Sts) -> AsyncIterator[Gateway]:
    async with running(tmp_path, aws_auth=auth(real_sts)) as it:
        yield it


async def asked(gateway: Gateway, headers: Mapping[str, str], path: str = "/get") -> tuple[int, str]:
    """Status and kind."""
    answer = await gateway.request("GET", path, headers=headers)
    return answer.status, answer.kind if answer.status >= 400 else ""


async def test_who_signs_for_the_account_is_served(gateway: Gateway, real_sts: Sts) -> None:
    for path in ("/get", "/get/digits", "/info", f"/logs/digits?jobID={JOB_ID}"):
        assert await asked(gateway, real_sts.header(), path) == (200, "")


async def test_everyone_else_is_not(gateway: Gateway, real_sts: Sts) -> None:
    assert await asked(gateway, {}) == (400, "endpoints.header_missing")
    assert await asked(gateway, {"X-Cortex-Authorization": "AWS4 nonsense"}) == (400, "endpoints.header_malformed")
    assert await asked(gateway, real_sts.header(STRANGER)) == (403, "endpoints.auth_invalid")
    forged = Credentials(real_sts.user.access_key, "a guess")
    assert await asked(gateway, real_sts.header(forged)) == (403, "endpoints.auth_invalid")
    for method, path in (("POST", "/deploy?configFileName=x"), ("DELETE", "/delete/digits"), ("GET", "/info")):
        assert (await gateway.request(method, path)).kind == "endpoints.header_missing"
    assert gateway.asked.requests == []


async def test_jobs_and_the_operators_name_are_open(gateway: Gateway) -> None:
    for path in ("/verifycortex", f"/batch/digits?jobID={JOB_ID}"):
        assert await asked(gateway, {}, path) == (200, "")


async def test_the_log_stream_asks_too(gateway: Gateway, real_sts: Sts) -> None:
    url = f"ws://{gateway.address.host}:{gateway.address.port}/streamlogs/digits?jobID={JOB_ID}"
    with pytest.raises(InvalidStatus) as error:
        await connect(url, proxy=None)
    assert b"endpoints.header_missing" in error.value.response.body
    gateway.asked.lines.put_nowait(None)
    async with connect(url, additional_headers=real_sts.header(), proxy=None):
        pass


async def test_other_accounts_and_other_people_are_refused(tmp_path: Path, real_sts: Sts) -> None:
    cases: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"accounts": frozenset({"111122223333"})}, (403, "endpoints.auth_other_account")),
        ({"arns": ("arn:aws:iam::*:user/bob",)}, (403, "endpoints.auth_not_allowed")),
        ({"arns": ("arn:aws:iam::*:user/bob", real_sts.arn)}, (200, "")),
        ({"arns": (f"arn:aws:iam::{ACCOUNT}:user/a??",)}, (200, "")),
    ]
    for changes, expected in cases:
        async with running(tmp_path, aws_auth=auth(real_sts, **changes)) as gateway:
            assert await asked(gateway, real_sts.header()) == expected


async def test_without_the_setting_the_header_is_ignored(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert await asked(gateway, {"X-Cortex-Authorization": "AWS4 nonsense"}) == (200, "")


async def test_the_unix_socket_is_this_users_own(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_unix_connection(str(gateway.unix_socket))
    writer.write(b"GET /get HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


class Sniffed:
    """An STS that counts and answers what a test says."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status, self.body = 200, answer_for("111122223333")
        self.headers: dict[str, str] = {}
        sniffed = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library names it
                body = self.rfile.read(int(self.headers["content-length"]))
                sniffed.requests.append((self.path, dict(self.headers), body))
                self.send_response(sniffed.status)
                for name, value in sniffed.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sniffed.body)))
                self.end_headers()
                self.wfile.write(sniffed.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    def header(self, name: str = "AKIA1") -> Mapping[str, str]:
        return Sts(self.url, Credentials(name, "secret"), "").header()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def answer_for(account: str) -> bytes:
    return (
        f"<R xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><GetCallerIdentityResult><Account>{account}</Account>"
        f"<Arn>arn:aws:iam::{account}:user/ann</Arn></GetCallerIdentityResult></R>"
    ).encode()


@pytest.fixture
def sniffed() -> Iterator[Sniffed]:
    it = Sniffed()
    yield it
    it.close()


@pytest.fixture
async def in_front(tmp_path: Path, sniffed: Sniffed) -> AsyncIterator[Gateway]:
    async with running(tmp_path, aws_auth=AwsAuth(frozenset({"111122223333"}), (), sniffed.url)) as it:
        yield it


async def test_sts_is_asked_once_for_a_header_and_gets_nothing_else_of_it(in_front: Gateway, sniffed: Sniffed) -> None:
    header = sniffed.header()
    results = await asyncio.gather(*(asked(in_front, header) for _ in range(5)))
    assert results == [(200, "")] * 5
    [(path, headers, body)] = sniffed.requests
    assert (path, body) == ("/", b"Action=GetCallerIdentity&Version=2011-06-15")
    assert {name.lower() for name in headers} == {
        *("host", "accept-encoding", "content-length", "content-type", "user-agent", "x-amz-date", "authorization")
    }
    await asked(in_front, sniffed.header("AKIA2"))
    assert len(sniffed.requests) == 2


async def test_a_refusal_is_remembered_and_trouble_is_not(in_front: Gateway, sniffed: Sniffed) -> None:
    sniffed.status = 500
    assert await asked(in_front, sniffed.header()) == (503, "endpoints.auth_api_error")
    sniffed.status = 403
    header = sniffed.header()
    for _ in range(2):
        assert await asked(in_front, header) == (403, "endpoints.auth_invalid")
    assert len(sniffed.requests) == 2


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"<html/>"),
        (200, {}, b" " * 100_000 + answer_for("111122223333")),
        (503, {}, b""),
    ],
)
async def test_what_is_no_answer_of_sts_lets_nobody_in(
    in_front: Gateway, sniffed: Sniffed, status: int, headers: dict[str, str], body: bytes
) -> None:
    sniffed.status, sniffed.headers, sniffed.body = status, headers, body
    assert await asked(in_front, sniffed.header()) == (503, "endpoints.auth_api_error")


async def test_an_sts_that_is_away_is_trouble(in_front: Gateway, sniffed: Sniffed) -> None:
    header = sniffed.header()
    sniffed.close()
    answer = await in_front.request("GET", "/get", headers=header)
    assert (answer.status, answer.kind) == (503, "endpoints.auth_api_error")
    assert urllib3.HTTPHeaderDict(answer.headers)["retry-after"]
