"""A job's batches and its retry through a real gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1.batch_service_pb2 import ListBatchesRequest, RetryJobRequest
from cortex.batch.v1.resources_pb2 import Batch
from services.common.errors import Category, CortexError
from tests.integration.gateway_harness import JOB_ID, Gateway, job, running

BATCHES = f"/batch/digits/{JOB_ID}/batches"
RETRY = f"/batch/digits/{JOB_ID}/retry"
ITEMS = '[1.0,12345678901234567890,1e400,{"b":1,"a":2,"b":3},"\\u00e9 é"]'


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


async def test_failed_batches_are_shown_with_their_items_byte_for_byte(gateway: Gateway) -> None:
    failed = Batch(index=3, state=Batch.STATE_FAILED, attempts=2, http_status=503, error="busy", items_json=ITEMS)
    failed.time.CopyFrom(Timestamp(seconds=1_700_000_000, nanos=5_000_000))
    gateway.asked.batches = [failed, Batch(index=4, state=Batch.STATE_LEASED, items_json="[2]")]
    answer = await gateway.get(f"{BATCHES}?state=failed&page_size=20&page_token=3")
    wanted = ListBatchesRequest(
        api_name="digits", job_id=JOB_ID, states=[Batch.STATE_FAILED], page_size=20, page_token="3"
    )
    assert gateway.asked.last == wanted
    assert answer.body.decode() == (
        '{"batches":[{"index":3,"state":"failed","attempts":2,"http_status":503,"error":"busy",'
        f'"time":"2023-11-14T22:13:20.005Z","items":{ITEMS}}},'
        '{"index":4,"state":"leased","attempts":0,"http_status":0,"error":"","time":null,"items":[2]}],'
        '"next_page_token":"7"}'
    )
    await gateway.get(BATCHES)
    assert gateway.asked.last == ListBatchesRequest(api_name="digits", job_id=JOB_ID), "all states"


async def test_a_batch_that_was_split_and_items_that_cannot_be_read_any_more(gateway: Gateway) -> None:
    gateway.asked.batches = [Batch(index=3, state=Batch.STATE_SPLIT, attempts=2)]
    answer = await gateway.get(f"{BATCHES}?state=split")
    assert gateway.asked.last.states == [Batch.STATE_SPLIT]
    [batch] = answer.json["batches"]
    assert (batch["state"], batch["items"]) == ("split", None)


@pytest.mark.parametrize("query", ["state=broken", "page_size=0", "page_size=-1", "page_size=x", "page_size=1.5"])
async def test_a_query_without_sense_is_refused(gateway: Gateway, query: str) -> None:
    answer = await gateway.get(f"{BATCHES}?{query}")
    assert (answer.status, answer.kind) == (400, "endpoints.invalid_query_param")
    assert query.split("=")[0] in answer.json["message"]


async def test_a_job_that_is_not_there_has_no_batches_and_no_retry(gateway: Gateway) -> None:
    missing = "/batch/digits/0000000000000000"
    for answer in (await gateway.get(f"{missing}/batches"), await gateway.submit(b"", f"{missing}/retry")):
        assert (answer.status, answer.kind) == (404, "job.not_found")


@pytest.mark.parametrize(
    ("body", "workers"), [(b"", None), (b"{}", None), (b'{"workers": null}', None), (b'{"workers": 3}', 3)]
)
async def test_a_retry_is_answered_like_a_submission(gateway: Gateway, body: bytes, workers: int | None) -> None:
    answer = await gateway.submit(body, RETRY)
    assert answer.status == 200
    assert (answer.json["job_id"], answer.json["retry_of"]) == ("69a1b2c3d4e5f001", JOB_ID)
    assert gateway.asked.last == RetryJobRequest(api_name="digits", job_id=JOB_ID, workers=workers)
    gateway.asked.jobs[JOB_ID] = job(retried_by="69a1b2c3d4e5f001")
    status = (await gateway.get(f"/batch/digits?jobID={JOB_ID}")).json["job_status"]
    assert status["retried_by"] == "69a1b2c3d4e5f001"


async def test_a_retry_with_a_key_may_be_sent_again(gateway: Gateway) -> None:
    answer = await gateway.request("POST", RETRY, b"", headers={"Idempotency-Key": "k1"})
    assert answer.status == 200
    assert gateway.asked.last == RetryJobRequest(api_name="digits", job_id=JOB_ID, request_id="k1")
    answer = await gateway.request("POST", RETRY, b"", headers={"Idempotency-Key": "no spaces"})
    assert (answer.status, answer.kind) == (400, "endpoints.invalid_header")


async def test_what_a_retry_does_not_take_is_said(gateway: Gateway) -> None:
    assert (await gateway.submit(b'{"wokers": 3}', RETRY)).json["warnings"] == ["wokers: unknown field, ignored"]
    wrong = await gateway.submit(b'{"workers": "two"}', RETRY)
    assert (wrong.status, wrong.kind) == (400, "configreader.invalid_primitive_type")
    assert (await gateway.submit(b"[]", RETRY)).status == 400
    assert (await gateway.get(RETRY)).kind == "endpoints.method_not_allowed"
    gateway.asked.error = CortexError("job.already_retried", "job 1 was retried already", Category.CONFLICT)
    again = await gateway.submit(b"", RETRY)
    assert (again.status, again.kind) == (400, "job.already_retried")
