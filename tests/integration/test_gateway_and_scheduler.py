"""A real gateway in front of a real scheduler: what only both together show."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from services.common.grpc_errors import from_rpc_error
from services.common.job_document import rfc3339
from services.common.names import CHANNEL_OPTIONS
from tests.integration.gateway_harness import in_front_of
from tests.integration.scheduler_kit import Kit, ScriptedDriver, scheduler

MIB = 1024 * 1024
DEFINED = "configreader.must_be_defined"
LEAST = "configreader.must_be_greater_than_or_equal_to"


@dataclass
class Both:
    """The two, with an API deployed."""

    kit: Kit
    url: str

    async def request(self, method: str, path: str, body: str | None = None) -> urllib3.BaseHTTPResponse:
        return await asyncio.to_thread(urllib3.request, method, self.url + path, body=body, retries=False, timeout=30)

    async def submit(self, **fields: Any) -> urllib3.BaseHTTPResponse:
        body = {"workers": 1, "item_list": {"items": [1], "batch_size": 1}, **fields}
        return await self.request("POST", "/batch/hello", json.dumps(body))


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with scheduler(tmp_path, ScriptedDriver()) as kit, in_front_of(kit.address, tmp_path) as (address, _):
        await kit.deploy()
        yield Both(kit, address.url)


FILES = {"s3_paths": ["s3://bucket/"]}


@pytest.mark.parametrize(
    ("source", "given"), [("item_list", {"items": [1]}), ("file_path_lister", FILES), ("delimited_files", FILES)]
)
async def test_a_batch_size_that_is_missing_is_not_one_of_0(both: Both, source: str, given: dict[str, Any]) -> None:
    for size, kind in ((None, DEFINED), (0, LEAST)):
        sized = given if size is None else {**given, "batch_size": size}
        refused = await both.submit(**{"item_list": None, source: sized})
        assert (refused.status, refused.json()["kind"]) == (400, kind)
        assert f"{source}.batch_size: " in refused.json()["message"]
        request = pb.SubmitJobRequest(api_name="hello", workers=1)
        message = getattr(request, source)
        if source == "item_list":
            message.items_json = "[1]"
        else:
            message.s3_paths.extend(FILES["s3_paths"])
        if size is not None:
            message.batch_size = size
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await both.kit.batch.SubmitJob(request)
        assert from_rpc_error(error.value).kind == kind


ARN = "arn:aws:sqs:us-west-2:123456789012:q"


@pytest.mark.parametrize(
    ("queue", "kind", "field"),
    [
        ({"max_receive_count": 1}, DEFINED, "arn"),
        ({"arn": None, "max_receive_count": 1}, DEFINED, "arn"),
        ({"arn": "", "max_receive_count": 1}, "configreader.cannot_be_empty", "arn"),
        ({"arn": ARN}, DEFINED, "max_receive_count"),
        ({"arn": ARN, "max_receive_count": 0}, LEAST, "max_receive_count"),
    ],
)
async def test_what_a_queue_is_missing_is_not_empty_or_0(
    both: Both, queue: dict[str, Any], kind: str, field: str
) -> None:
    refused = await both.submit(sqs_dead_letter_queue=queue)
    assert (refused.status, refused.json()["kind"]) == (400, kind)
    assert refused.json()["message"].startswith(f"sqs_dead_letter_queue.{field}: ")


async def test_a_running_job_is_changed(both: Both) -> None:
    job_id = (await both.submit()).json()["job_id"]
    path = f"/batch/hello?jobID={job_id}"
    changed = await both.request("PATCH", path, '{"workers": 3, "paused": true}')
    assert changed.status == 200, changed.data
    status = changed.json()["job_status"]
    assert (status["job_id"], status["workers"], status["paused"]) == (job_id, 3, True)
    assert (await both.request("GET", path)).json()["job_status"]["workers"] == 3
    assert "paused" not in (await both.request("PATCH", path, '{"paused": false}')).json()["job_status"]
    refused = await both.request("PATCH", path, '{"workers": 0}')
    assert (refused.status, refused.json()["kind"]) == (400, LEAST)
    await both.request("DELETE", path)
    over = await both.request("PATCH", path, '{"workers": 1}')
    assert (over.status, over.json()["kind"]) == (400, "job.job_is_not_in_progress")


async def test_results_that_were_not_asked_for_are_an_error_with_a_status(both: Both) -> None:
    job_id = (await both.submit()).json()["job_id"]
    for query in ("", "?follow=true"):
        refused = await both.request("GET", f"/batch/hello/{job_id}/results{query}")
        assert (refused.status, refused.json()["kind"]) == (400, "job.results_not_kept")
    errors = await both.request("GET", f"/batch/hello/{job_id}/errors")
    assert (errors.status, errors.data) == (200, b"")


async def pages(kit: Kit, **fields: Any) -> list[list[str]]:
    """The ids on each page, as a client with gRPC's own limits reads them."""
    found, request = [], pb.ListJobsRequest(api_name="hello", **fields)
    while True:
        page = await kit.batch.ListJobs(request)
        found.append([job.job_id for job in page.jobs])
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_what_is_not_there_is_named(both: Both) -> None:
    for method in ("GET", "DELETE"):
        assert (await both.request(method, "/batch/hello?jobID=1")).json()["kind"] == "job.not_found"
        assert (await both.request(method, "/batch/nope?jobID=1")).json()["kind"] == "resources.api_not_deployed"
        long = await both.request(method, f"/batch/hello?jobID={'x' * 20_000}")
        assert (long.status, long.json()["kind"]) == (404, "job.not_found")


async def test_a_submission_that_is_sent_again_with_its_key_is_accepted_once(both: Both) -> None:
    async def submit(workers: int, key: str) -> Any:
        body = json.dumps({"workers": workers, "item_list": {"items": [1], "batch_size": 1}})
        url, headers = f"{both.url}/batch/hello", {"Idempotency-Key": key}
        return (await asyncio.to_thread(urllib3.request, "POST", url, body=body, headers=headers)).json()

    answers = await asyncio.gather(*(submit(1, "once-7") for _ in range(8)))
    assert len({answer["job_id"] for answer in answers}) == 1
    assert (await submit(2, "once-7"))["kind"] == "job.idempotency_key_reused"
    assert (await submit(1, "once-8"))["job_id"] != answers[0]["job_id"]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await both.kit.batch.SubmitJob(pb.SubmitJobRequest(api_name="hello", request_id="x" * 256))
    assert from_rpc_error(error.value).kind == "job.invalid_request_id"


@pytest.mark.parametrize("items", [{}, {"items": None}, {"items": []}])
async def test_items_that_are_not_given_are_too_few(both: Both, items: dict[str, Any]) -> None:
    answer = await both.submit(item_list={**items, "batch_size": 1})
    assert (answer.status, answer.json()["kind"]) == (400, "configreader.too_few_elements")


async def test_large_jobs_make_a_page_end_early(both: Both) -> None:
    ids = [(await both.submit(config="x" * (3 * MIB // 2))).json()["job_id"] for _ in range(3)]
    ids += [(await both.submit()).json()["job_id"] for _ in range(12)]
    ids.reverse()  # newest first
    assert await pages(both.kit) == [ids[:14], ids[14:]]
    assert await pages(both.kit, page_size=13) == [ids[:13], ids[13:]]
    assert (await pages(both.kit, page_size=5))[:2] == [ids[:5], ids[5:10]]
    answer = await both.request("GET", "/get/hello")
    assert [job["job_id"] for job in answer.json()[0]["batch_job_statuses"]] == ids[:10]


async def test_a_job_larger_than_a_page_has_one_of_its_own(both: Both) -> None:
    ids = [(await both.submit(config="x" * size)).json()["job_id"] for size in (1, 5 * MIB, 5 * MIB, 1)]
    async with grpc.aio.insecure_channel(both.kit.address, options=CHANNEL_OPTIONS) as channel:
        stub = batch_service_pb2_grpc.BatchServiceStub(channel)
        kit = Kit(both.kit.driver, stub, channel, both.kit.address, both.kit.ledger)
        assert await pages(kit) == [[ids[3]], [ids[2]], [ids[1]], [ids[0]]]
    answer = await both.request("GET", "/get/hello")
    assert [job["job_id"] for job in answer.json()[0]["batch_job_statuses"]] == ids[::-1]


async def test_containers_find_what_the_submission_was_answered_to_the_letter(both: Both) -> None:
    config = r'{ "b":1.0,"a":1e400, "a":"\ud800", "big":12345678901234567890 }'
    body = (
        f'{{"workers":1,"timeout":600,"batch_timeout":7,"config":{config},"item_list":{{"items":[1],"batch_size":1}}}}'
    )
    for text in (body, '{"workers":1,"item_list":{"items":[1],"batch_size":1}}'):
        answered = (await both.request("POST", "/batch/hello", text)).data.decode()
        job_id = json.loads(answered)["job_id"]
        await both.kit.worker()  # by then the file is written
        found = both.kit.driver.job_specs.pop()
        assert found == answered
        assert ("batch_timeout" in answered) == (text is body)
        status = (await both.request("GET", f"/batch/hello?jobID={job_id}")).data.decode()
        assert status.startswith('{"job_status":' + found.removesuffix("}"))


@given(st.integers(0, 2**62) | st.integers(0, 2**32).map(lambda milliseconds: milliseconds * 10**6))
def test_times_are_written_as_protobuf_writes_them(nanoseconds: int) -> None:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(nanoseconds)
    assert rfc3339(nanoseconds) == timestamp.ToJsonString()
