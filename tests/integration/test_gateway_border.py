"""Who may call, and what is not HTTP as it should be."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from services.gateway import body, http_protocol
from services.gateway.settings import Address
from tests.integration.gateway_harness import JOB_ID, Gateway, running

GOOD = b'{"workers":1,"item_list":{"items":[1],"batch_size":1}}'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8888", "127.0.0.1.evil.example", "localhost.evil", "", "["]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_sites_name_is_refused(gateway: Gateway, method: str, host: str) -> None:
    answer = await gateway.request(method, f"/batch/digits?jobID={JOB_ID}", GOOD, {"Host": host})
    assert (answer.status, answer.kind) == (403, "endpoints.host_not_allowed")
    assert gateway.asked.requests == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8888", "[::1]:8888", "[::1]"])
async def test_loopback_names_pass_at_any_port(gateway: Gateway, host: str) -> None:
    assert (await gateway.request("POST", "/batch/digits", GOOD, {"Host": host})).status == 200


async def test_two_names_are_refused(gateway: Gateway) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        answer = await gateway.raw(b"GET /get HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")


async def test_the_public_urls_name_passes(tmp_path: Path) -> None:
    async with running(tmp_path, public_url="http://batch.internal:80") as gateway:
        assert (await gateway.get("/get", Host="batch.internal")).status == 200
        assert (await gateway.get("/get", Host="evil.example")).status == 403


async def test_any_name_passes_where_that_is_wanted(tmp_path: Path) -> None:
    async with running(tmp_path, insecure=True) as gateway:
        assert (await gateway.get("/get", Host="anything.example")).status == 200
        cross_site = await gateway.request("POST", "/batch/digits", GOOD, {"Origin": "http://evil.example"})
        assert (cross_site.status, cross_site.kind) == (403, "endpoints.cross_site_request")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/batch/digits"), ("POST", "/deploy"), ("DELETE", "/delete/digits")]
)
async def test_another_sites_page_changes_nothing(
    gateway: Gateway, method: str, path: str, headers: Mapping[str, str]
) -> None:
    answer = await gateway.request(method, path, GOOD, headers)
    assert (answer.status, answer.kind) == (403, "endpoints.cross_site_request")
    assert gateway.asked.requests == []
    assert not any(name.lower().startswith("access-control-") for name in answer.headers)


async def test_our_own_page_may(gateway: Gateway) -> None:
    own = {"Origin": gateway.address.url, "Sec-Fetch-Site": "same-origin"}
    assert (await gateway.request("POST", "/batch/digits", GOOD, own)).status == 200


async def test_the_unix_socket_is_for_this_user_and_takes_any_name(gateway: Gateway) -> None:
    assert gateway.unix_socket.stat().st_mode & 0o777 == 0o600
    reader, writer = await asyncio.open_unix_connection(str(gateway.unix_socket))
    writer.write(b"GET /get HTTP/1.1\r\nHost: ingressgateway-operator\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


# What is not HTTP as it should be


def problem(answer: bytes) -> tuple[int, str]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    told = json.loads(rest)
    assert set(told) == {"kind", "message"}
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), told["kind"]


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"GET /get HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(6),
)
async def test_nonsense_is_answered_in_json(gateway: Gateway, data: bytes) -> None:
    assert problem(await gateway.raw(data)) == (400, "endpoints.malformed_request")
    assert (await gateway.get("/healthz")).status == 200


@pytest.mark.parametrize("part", [b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_without_end_is_cut_off(gateway: Gateway, part: bytes) -> None:
    answer = await gateway.raw(part + b"x" * 400_000)
    assert problem(answer) == (431, "endpoints.headers_too_large")


@pytest.mark.parametrize("part", [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea"])
async def test_a_head_that_does_not_come_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.3)
    async with asyncio.timeout(10):
        answers = await gateway.raw(part)
    assert problem(b"HTTP" + answers.rsplit(b"HTTP", 1)[1]) == (408, "endpoints.request_timeout")


async def test_a_body_that_does_not_come_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    data = b"POST /batch/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    async with asyncio.timeout(10):
        assert problem(await gateway.raw(data)) == (408, "endpoints.request_timeout")


async def test_a_body_that_trickles_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "TOTAL_S", 0.3)
    data = b"POST /batch/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    async with asyncio.timeout(10):
        assert problem(await gateway.raw(data)) == (408, "endpoints.request_timeout")


OFFER = b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"


async def test_a_client_that_offers_http_2_is_served(gateway: Gateway) -> None:
    submission = b"POST /batch/digits HTTP/1.1\r\n" + OFFER
    whole = submission + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    chunked = submission + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    for request in (whole, chunked, whole + whole):
        assert (await gateway.raw(request)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(gateway.asked.requests) == 3
    assert (await gateway.raw(b"GET /get HTTP/1.1\r\n" + OFFER + b"\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_its_body_may_come_later(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(GOOD)
    writer.write(b"POST /batch/digits HTTP/1.1\r\n" + OFFER + length)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(GOOD[:20])
    await writer.drain()
    writer.write(GOOD[20:])
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_requests_on_one_connection_are_answered_in_order(gateway: Gateway) -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    answer = await gateway.raw(request % (b"healthz", b"") + request % (b"readyz", b"Connection: close\r\n"))
    assert answer.index(b'{"status":"alive"}') < answer.index(b'{"status":"ready"}')


async def test_an_unread_body_does_not_become_a_request(gateway: Gateway) -> None:
    inner = b"DELETE /delete/digits HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner)
    answer = await gateway.raw(head + inner + b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert gateway.asked.requests == []


async def test_ipv6_works_too(tmp_path: Path) -> None:
    async with running(tmp_path, address=Address("::1", 0)) as gateway:
        assert gateway.address.url.startswith("http://[::1]:")
        assert (await gateway.get("/readyz")).status == 200
