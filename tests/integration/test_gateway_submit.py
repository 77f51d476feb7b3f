"""Submissions through a real gateway: what reaches the scheduler, and what is refused before it does."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex.batch.v1.batch_service_pb2 import GetApiRequest, SubmitJobRequest
from services.common.errors import Category, CortexError
from services.common.names import MAX_SUBMISSION_BYTES
from tests.integration.gateway_harness import JOB_ID, Gateway, running

ITEMS = r'[ 12345678901234567890, 1.0 ,1e400,{"b":1,"a":2,"a":3}, "\u00e9\/\n", "\ud800", "\\ud800",null,[[]] ]'
GOOD = b'{"workers":1,"item_list":{"items":[1],"batch_size":1}}'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


async def test_items_and_config_arrive_byte_for_byte(gateway: Gateway) -> None:
    config = r'{ "a" : 1.0,"a":12345678901234567890, "\u0061":"\udfff" }'
    body = f'{{"workers":2,"config":{config},"item_list":{{"items":{ITEMS},"batch_size":3}}}}'
    answer = await gateway.submit(body)
    assert answer.status == 200
    assert gateway.asked.last.item_list.items_json == ITEMS
    assert gateway.asked.last.config_json == config
    assert f'"config":{config}'.encode() in answer.body
    assert list(answer.json) == [
        *("job_id", "api_name", "kind", "workers", "config", "api_id", "sqs_url", "timeout"),
        *("sqs_dead_letter_queue", "start_time", "created_time"),
    ]


async def test_an_api_takes_jobs_at_its_own_endpoint_too(gateway: Gateway) -> None:
    gateway.asked.apis["digits"].endpoint = "/my/own/path"
    assert (await gateway.submit(GOOD, "/my/own/path")).status == 200
    looked_up, submitted = gateway.asked.requests
    assert looked_up == GetApiRequest(endpoint="/my/own/path")
    assert submitted.api_name == "digits"
    assert (await gateway.get(f"/my/own/path?jobID={JOB_ID}")).json["job_status"]["job_id"] == JOB_ID
    stopped = await gateway.request("DELETE", f"/my/own/path?jobID={JOB_ID}")
    assert stopped.json == {"message": f"stopped job {JOB_ID}"}


async def test_what_was_passed_over_is_told_by_both(gateway: Gateway) -> None:
    gateway.asked.warnings = ["from the scheduler"]
    answer = await gateway.submit(b'{"workers":1,"wokers":2}')
    assert answer.json["warnings"] == ["wokers: unknown field, ignored", "from the scheduler"]


async def test_an_idempotency_key_goes_along(gateway: Gateway) -> None:
    await gateway.request("POST", "/batch/digits", GOOD, {"Idempotency-Key": "once-7"})
    assert gateway.asked.last.request_id == "once-7"
    for wrong in ("x" * 256, ""):
        refused = await gateway.request("POST", "/batch/digits", GOOD, {"Idempotency-Key": wrong})
        assert (refused.status, refused.kind) == (400, "endpoints.invalid_header")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "json.malformed"),
        (b"   ", "json.malformed"),
        (b"\xef\xbb\xbf" + GOOD, "json.malformed"),
        (b"[]", "json.malformed"),
        (b'"workers"', "json.malformed"),
        (b"null", "json.malformed"),
        (GOOD[:-1], "json.malformed"),
        (GOOD + b"x", "json.malformed"),
        (b'{"workers":01}', "json.malformed"),
        (b"{'workers':1}", "json.malformed"),
        (b'{"workers":NaN}', "json.malformed"),
        (b'{"config":"\xff"}', "json.malformed"),
        (b'{"config":"\xc0\xaf"}', "json.malformed"),
        (b'{"config":"a\nb"}', "json.malformed"),
        (b'{"config":' + b"[" * 512 + b"]" * 512 + b"}", "json.malformed"),
        (b'{"config":' + b"[" * 1_000_000, "json.malformed"),
        (b'{"config":' + b'{"a":' * 1_000_000, "json.malformed"),
        (b'{"workers":"two"}', "configreader.invalid_primitive_type"),
        (b'{"workers":1.5}', "configreader.invalid_primitive_type"),
        (b'{"workers":true}', "configreader.invalid_primitive_type"),
        (b'{"workers":1,"item_list":{"items":"x"}}', "configreader.invalid_primitive_type"),
    ],
    ids=range(21),
)
async def test_a_malformed_submission_never_reaches_the_scheduler(gateway: Gateway, body: bytes, kind: str) -> None:
    answer = await gateway.submit(body)
    assert (answer.status, answer.kind) == (400, kind)
    assert gateway.asked.requests == []


async def test_nesting_is_allowed_up_to_512(gateway: Gateway) -> None:
    deep = b"[" * 511 + b"]" * 511
    assert (await gateway.submit(b'{"workers":1,"config":' + deep + b"}")).status == 200
    assert gateway.asked.last.config_json.encode() == deep


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CortexError("job.specify_exactly_one_key", "give one input"), 400),
        (CortexError("batchapi.item_size_exceeds_limit", "item 3 is too large", Category.TOO_LARGE), 413),
        (CortexError("resources.api_not_deployed", "no api", Category.NOT_FOUND), 404),
        (CortexError("job.job_is_not_in_progress", "over", Category.CONFLICT), 400),
        (CortexError("storage.not_configured", "object storage is not configured", Category.UNSUPPORTED), 400),
        (CortexError("ledger.storage_full", "the disk is full", Category.STORAGE_FULL), 507),
        (CortexError("system.draining", "shutting down", Category.UNAVAILABLE), 503),
        (CortexError("ledger.failed", "broken", Category.INTERNAL), 500),
    ],
)
async def test_the_schedulers_errors_are_passed_on(gateway: Gateway, error: CortexError, status: int) -> None:
    gateway.asked.error = error
    answer = await gateway.submit(GOOD)
    assert (answer.status, answer.json) == (status, {"kind": error.kind, "message": error.message})
    assert ("retry-after" in answer.headers) == (status == 503)
    assert len(gateway.asked.requests) == 1


async def test_a_dry_run_is_text_for_people(gateway: Gateway) -> None:
    answer = await gateway.submit(GOOD, "/batch/digits?dryRun=true")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == b"s3://bucket/a\ns3://bucket/b\nvalidations passed\n"
    assert gateway.asked.last.dry_run
    gateway.asked.more_files = 7
    long = await gateway.submit(GOOD, "/batch/digits?dryRun=true")
    assert long.body == b"s3://bucket/a\ns3://bucket/b\n... and 7 more\nvalidations passed\n"
    assert await dry_run(gateway, b"{") == (
        400,
        b"the body is not valid JSON: it ends in the middle, at line 1 column 2",
    )
    gateway.asked.error = CortexError("resources.api_not_deployed", "digits is not deployed", Category.NOT_FOUND)
    assert await dry_run(gateway, GOOD) == (400, b"digits is not deployed\n")


async def dry_run(gateway: Gateway, body: bytes) -> tuple[int, bytes]:
    answer = await gateway.submit(body, "/batch/digits?dryRun=1")
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.status, answer.body.split(b" (byte")[0]


async def test_a_flag_that_is_neither_true_nor_false_is_refused(gateway: Gateway) -> None:
    answer = await gateway.submit(GOOD, "/batch/digits?dryRun=maybe")
    assert (answer.status, answer.kind) == (400, "endpoints.invalid_query_param")
    assert gateway.asked.requests == []


def of_size(size: int) -> bytes:
    rest = len(b'{"workers":1,"config":""}')
    return b'{"workers":1,"config":"' + b"x" * (size - rest) + b'"}'


async def test_a_body_of_10_mib_is_accepted_and_one_more_byte_is_not(gateway: Gateway) -> None:
    assert (await gateway.submit(of_size(MAX_SUBMISSION_BYTES))).status == 200
    gateway.asked.requests.clear()
    answer = await gateway.submit(of_size(MAX_SUBMISSION_BYTES + 1))
    assert (answer.status, answer.kind) == (413, "batchapi.request_size_exceeds_limit")
    assert gateway.asked.requests == []


@pytest.mark.parametrize("mebibytes", [11, 40])
async def test_a_client_that_only_writes_at_first_sees_413(gateway: Gateway, mebibytes: int) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(mebibytes):
            yield b"x" * 2**20

    chunked = await gateway.request("POST", "/batch/digits", chunks())
    assert (chunked.status, chunked.kind) == (413, "batchapi.request_size_exceeds_limit")
    whole = await gateway.submit(b"x" * (mebibytes * 2**20))
    assert (whole.status, whole.kind) == (413, "batchapi.request_size_exceeds_limit")
    dry = await gateway.submit(b"x" * (mebibytes * 2**20), "/batch/digits?dryRun=true")
    assert (dry.status, dry.headers["content-type"]) == (400, "text/plain; charset=utf-8")


async def test_even_40_mib_in_one_go_do_not_reset_the_connection(gateway: Gateway) -> None:
    size = 40 * 2**20
    head = f"POST /batch/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    answer = await gateway.raw(head.encode() + b"x" * size)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"}")


async def test_a_client_that_waits_for_100_continue_need_not_send_a_large_body(gateway: Gateway) -> None:
    head = b"POST /batch/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    writer.write(head)
    assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address.host, gateway.address.port)
    writer.write(b"POST /batch/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert gateway.asked.requests == []


ANYTHING = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["workers", "timeout", "item_list", "file_path_lister", "delimited_files", "sqs_dead_letter_queue", "config", "x"]
)


@given(ANYTHING | st.dictionaries(FIELDS, JSON, max_size=4).map(lambda value: json.dumps(value).encode()))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_is_taken_or_refused_with_a_reason(fuzzed: "Fuzzed", body: bytes) -> None:
    fuzzed.send(body)


class Fuzzed:
    """A gateway that outlives the examples of a test, which are not coroutines."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._running = running(folder)
        self.gateway = runner.run(self._running.__aenter__())

    def send(self, body: bytes) -> None:
        self.gateway.asked.requests.clear()
        answer = self._runner.run(self.gateway.submit(body))
        if answer.status == 200:
            assert isinstance(self.gateway.asked.last, SubmitJobRequest)
        else:
            assert answer.status == 400
            assert answer.kind in ("json.malformed", "configreader.invalid_primitive_type")
            assert answer.json["message"]
            assert self.gateway.asked.requests == []

    def close(self) -> None:
        self._runner.run(self._running.__aexit__(None, None, None))


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Fuzzed]:
    with asyncio.Runner() as runner:
        it = Fuzzed(tmp_path, runner)
        yield it
        it.close()
