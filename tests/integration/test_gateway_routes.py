"""The routes through a real gateway: shapes of answers, parameters, methods, versions."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3
from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1.batch_service_pb2 import DeployApisRequest, LogLine, TailLogsRequest
from cortex.batch.v1.resources_pb2 import Job, JobMetrics
from services.common.errors import Category, CortexError
from tests.exposition import samples
from tests.integration.gateway_harness import JOB_ID, SPEC_JSON, Gateway, api, job, running

STATUS = {"job_id", "status", "batches_in_queue", "batch_counts", "trace_id", "workers", "config", "created_time"}
METADATA = {"name": "digits", "kind": "BatchAPI", "id": "v1", "last_updated": 1_700_000_000}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


def over(job_id: str, ended: float, **fields: Any) -> Job:
    return job(job_id, Job.STATUS_SUCCEEDED, end_time=Timestamp(seconds=int(ended)), **fields)


# Jobs


async def test_a_job_is_shown_with_its_api(gateway: Gateway) -> None:
    answer = await gateway.get(f"/batch/digits?jobID={JOB_ID}")
    assert answer.status == 200
    assert set(answer.json) == {"job_status", "endpoint", "api_spec", "metrics"}
    assert set(answer.json["job_status"]) > STATUS
    assert answer.json["endpoint"] == f"{gateway.address.url}/digits?jobID={JOB_ID}"
    assert f'"api_spec":{SPEC_JSON}'.encode() in answer.body


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_job_must_be_named_and_there(gateway: Gateway, method: str) -> None:
    missing = await gateway.request(method, "/batch/digits")
    assert (missing.status, missing.kind) == (400, "endpoints.query_param_required")
    assert "jobID" in missing.json["message"]
    empty = await gateway.request(method, "/batch/digits?jobID=")
    assert (empty.status, empty.kind) == (400, "endpoints.query_param_required")
    unknown = await gateway.request(method, "/batch/digits?jobID=0123456789abcdef")
    assert (unknown.status, unknown.kind) == (404, "job.not_found")


async def test_a_job_is_stopped_once(gateway: Gateway) -> None:
    assert (await gateway.request("DELETE", f"/batch/digits?jobID={JOB_ID}")).json == {
        "message": f"stopped job {JOB_ID}"
    }
    gateway.asked.jobs[JOB_ID] = over(JOB_ID, time.time())
    again = await gateway.request("DELETE", f"/batch/digits?jobID={JOB_ID}")
    assert (again.status, again.kind) == (400, "job.job_is_not_in_progress")


async def test_a_trace_is_read_from_the_collector(gateway: Gateway) -> None:
    trace = (await gateway.get(f"/batch/digits/{JOB_ID}/trace")).json
    assert (trace["trace_id"], trace["dropped_spans"]) == ("0af7651916cd43dd8448eb211c80319c", 3)
    assert trace["spans"] == [
        {
            "span_id": "00f067aa0ba902b7",
            "parent_span_id": "",
            "name": "POST /batch/{api_name}",
            "service": "cortex-gateway",
            "start_unix_nano": 1_700_000_000_000_000_001,
            "end_unix_nano": 1_700_000_000_000_000_002,
            "attributes": {"trace": "0af7651916cd43dd8448eb211c80319c"},
            "error": False,
            "status_message": "",
        }
    ]
    assert (await gateway.get("/batch/digits/nope/trace")).kind == "job.not_found"


async def test_without_a_collector_that_is_said(tmp_path: Path) -> None:
    async with running(tmp_path, collector=None) as gateway:
        answer = await gateway.get(f"/batch/digits/{JOB_ID}/trace")
        assert (answer.status, answer.kind) == (404, "trace.not_kept")
        assert "0af7651916cd43dd8448eb211c80319c" in answer.json["message"]


async def test_log_lines_carry_the_labels(gateway: Gateway) -> None:
    time_read = Timestamp(seconds=1_700_000_000, nanos=5_000_000)
    await gateway.asked.lines.put(LogLine(time=time_read, worker=1, container="api", message="hällo"))
    await gateway.asked.lines.put(None)
    answer = await gateway.get(f"/batch/digits/{JOB_ID}/logs?follow=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == [
        {
            "time": "2023-11-14T22:13:20.005Z",
            "worker": 1,
            "container": "api",
            "message": "hällo",
            "cortex.labels": {"apiName": "digits", "apiKind": "BatchAPI", "apiID": "v1", "jobID": JOB_ID},
        }
    ]
    assert gateway.asked.last == TailLogsRequest(api_name="digits", job_id=JOB_ID, follow=True)
    assert (await gateway.get("/batch/digits/nope/logs")).kind == "job.not_found"


# APIs


def form(
    content: bytes, name: str = "config", file_name: str | None = "cortex.yaml"
) -> tuple[bytes, Mapping[str, str]]:
    field = urllib3.fields.RequestField(name, content, file_name)
    field.make_multipart()
    body, content_type = urllib3.filepost.encode_multipart_formdata([field])
    return body, {"Content-Type": content_type}


async def test_a_file_is_deployed_as_it_is(gateway: Gateway) -> None:
    config = "- name: digits # ü\r\n".encode() + b"\x00\xff"
    body, headers = form(config)
    answer = await gateway.request("POST", "/deploy?force=true&configFileName=/home/me/cortex.yaml", body, headers)
    assert answer.json == [
        {
            "api": {"spec": json.loads(SPEC_JSON), "endpoint": f"{gateway.address.url}/digits"},
            "message": "created digits (BatchAPI)",
            "error": "",
        }
    ]
    assert gateway.asked.last == DeployApisRequest(file_name="/home/me/cortex.yaml", config=config, force=True)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"- name: digits", {"Content-Type": "application/x-yaml"}),
        (b"--x\r\n", {"Content-Type": "multipart/form-data"}),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=x"}),
        (
            b"--x\r\nContent-Disposition: form-data; name=\xff\r\n\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        ),
        (b"--x\r\nbroken", {"Content-Type": "multipart/form-data; boundary=x; charset=nonsense"}),
        form(b""),
        form(b"- name: digits", name="configuration"),
        form(b"- name: digits", file_name=None),
    ],
    ids=range(9),
)
async def test_a_deployment_needs_its_file(gateway: Gateway, body: bytes, headers: Mapping[str, str]) -> None:
    answer = await gateway.request("POST", "/deploy?configFileName=cortex.yaml", body, headers)
    assert (answer.status, answer.kind) == (400, "endpoints.form_file_must_be_provided")
    assert answer.json["message"].startswith("cortex.yaml: the file is ")
    assert gateway.asked.requests == []


async def test_a_deployment_needs_its_files_name(gateway: Gateway) -> None:
    body, headers = form(b"- name: digits")
    answer = await gateway.request("POST", "/deploy", body, headers)
    assert (answer.status, answer.kind) == (400, "endpoints.query_param_required")
    large, headers = form(b"x" * (11 * 2**20))
    assert (await gateway.request("POST", "/deploy?configFileName=x", large, headers)).status == 413


async def test_all_apis_are_listed_with_running_jobs_or_the_latest(gateway: Gateway) -> None:
    gateway.asked.apis["idle"] = api("idle")
    gateway.asked.apis["new"] = api("new")
    gateway.asked.page_size = 2  # several pages
    gateway.asked.jobs = {
        "1": over("1", 1_700_000_100),
        "2": job("2"),
        "3": job("3"),
        "4": job("4"),
        "5": over("5", 1_700_000_100, api_name="idle"),
        "6": over("6", 1_700_000_000, api_name="idle"),
    }
    listed = (await gateway.get("/get")).json
    assert [entry["metadata"]["name"] for entry in listed] == ["digits", "idle", "new"]
    assert listed[0]["metadata"] == METADATA
    assert set(listed[0]) == {"metadata", "batch_job_statuses"}
    assert [[status["job_id"] for status in entry["batch_job_statuses"]] for entry in listed] == [
        ["2", "3", "4"],
        ["5"],
        [],
    ]


async def test_an_api_is_shown_with_its_versions_and_newest_jobs(gateway: Gateway) -> None:
    gateway.asked.jobs = {f"{n:02}": job(f"{n:02}") for n in range(20)} | {"00": job("00", api_id="v0")}
    [shown] = (await gateway.get("/get/digits")).json
    assert set(shown) == {"spec", "metadata", "endpoint", "dashboard_url", "batch_job_statuses", "api_versions"}
    assert shown["metadata"] == METADATA
    assert shown["endpoint"] == f"{gateway.address.url}/digits"
    assert shown["api_versions"] == [{"api_id": "v1", "last_updated": 1_700_000_000}]
    assert [status["job_id"] for status in shown["batch_job_statuses"]] == [f"{n:02}" for n in range(10)]
    [version] = (await gateway.get("/get/digits/v1")).json
    assert [status["job_id"] for status in version["batch_job_statuses"]] == [f"{n:02}" for n in range(1, 11)]
    assert (await gateway.get("/get/nope")).kind == "resources.api_not_deployed"


async def test_an_api_is_deleted(gateway: Gateway) -> None:
    assert (await gateway.request("DELETE", "/delete/digits?keepCache=true")).json == {"message": "deleting digits"}
    unknown = await gateway.request("DELETE", "/delete/nope")
    assert (unknown.status, unknown.kind) == (404, "resources.api_not_deployed")


async def test_what_a_cortex_operator_also_has(gateway: Gateway) -> None:
    assert (await gateway.get("/verifycortex")).body == b"{}"
    assert (await gateway.get("/info")).json == {
        "cluster_config": {"api_version": "0.1.0"},
        "worker_node_infos": [],
        "operator_node_infos": [],
        "num_pending_replicas": 0,
    }
    assert (await gateway.get("/logs/digits")).kind == "endpoints.logs_job_id_required"
    url = (await gateway.get(f"/logs/digits?jobID={JOB_ID}")).json["log_url"]
    assert url == f"{gateway.address.url}/batch/digits/{JOB_ID}/logs"
    for answer in (await gateway.get("/describe/digits"), await gateway.request("POST", "/refresh/digits")):
        assert (answer.status, answer.kind) == (400, "resources.operation_is_only_supported_for_kind")
    assert (await gateway.get("/describe/nope")).kind == "resources.api_not_deployed"


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.42.0", 200), ("0.42.17", 200), ("0.1.0", 200), ("0.41.9", 400), ("0.42", 400), ("0.42.1x", 400), ("", 400)],
)
async def test_the_clients_version_must_fit(gateway: Gateway, version: str, status: int) -> None:
    answer = await gateway.get("/get", CortexAPIVersion=version, X_Cortex_Authorization="AWS4 nonsense")
    assert answer.status == status
    if status == 400:
        assert answer.kind == "endpoints.api_version_mismatch"
    for path in ("/verifycortex", "/info", f"/batch/digits?jobID={JOB_ID}"):
        assert (await gateway.get(path, CortexAPIVersion=version)).status == 200


# Paths and methods


async def test_a_path_that_is_nobodys_is_told_so(gateway: Gateway) -> None:
    for path in ("/nope", "/", "/batch/digits/more/than/that", "/%ff%00", "/batch/"):
        answer = await gateway.get(path)
        assert (answer.status, answer.kind) == (404, "endpoints.not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/batch/digits", {"DELETE", "GET", "HEAD", "PATCH", "POST", "OPTIONS"}),
        ("PUT", "/digits", {"DELETE", "GET", "HEAD", "PATCH", "POST", "OPTIONS"}),
        ("POST", "/get", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/deploy", {"POST", "OPTIONS"}),
        ("GET", "/delete/digits", {"DELETE", "OPTIONS"}),
        ("DELETE", "/healthz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_another_method_is_refused_with_those_allowed(
    gateway: Gateway, method: str, path: str, allowed: set[str]
) -> None:
    refused = await gateway.request(method, path)
    assert (refused.status, refused.kind) == (405, "endpoints.method_not_allowed")
    assert set(refused.headers["allow"].split(", ")) == allowed
    options = await gateway.request("OPTIONS", path)
    assert (options.status, options.body, set(options.headers["allow"].split(", "))) == (204, b"", allowed)
    assert not any(name.lower().startswith("access-control-") for name in options.headers)


async def test_head_is_get_without_the_body(gateway: Gateway) -> None:
    for path in (f"/batch/digits?jobID={JOB_ID}", "/get", "/docs"):
        head, whole = await gateway.request("HEAD", path), await gateway.get(path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    watching = await gateway.request("HEAD", f"/batch/digits?jobID={JOB_ID}&watch=true")
    assert (watching.status, watching.headers["content-type"]) == (200, "application/x-ndjson")
    assert (await gateway.request("HEAD", "/batch/digits?jobID=nope")).status == 404


# The gateway itself


async def test_health_is_honest(gateway: Gateway) -> None:
    assert (await gateway.get("/healthz")).status == 200
    assert (await gateway.get("/readyz")).json == {"status": "ready"}
    await gateway.scheduler.not_serving()
    not_ready = await gateway.get("/readyz")
    assert (not_ready.status, not_ready.kind) == (503, "system.unavailable")
    await gateway.scheduler.kill()
    assert (await gateway.get("/readyz")).status == 503
    assert (await gateway.get("/healthz")).status == 200


async def test_jobs_are_metrics_under_the_names_of_cortex(gateway: Gateway) -> None:
    metrics = JobMetrics(
        succeeded=6, failed=2, succeeded_seconds=3.5, bucket_bounds_seconds=[0.1, 1.0], bucket_counts=[1, 2, 3]
    )
    gateway.asked.jobs = {"2": job("2", metrics=metrics)}
    answer = await gateway.get("/metrics")
    for line in ("cortex_batch_succeeded counter", "cortex_batch_failed counter", "cortex_time_per_batch histogram"):
        assert f"# TYPE {line}\n" in answer.body.decode()
    found = samples(answer.body.decode())
    labels = (("api_name", "digits"), ("job_id", "2"))
    assert found["cortex_batch_succeeded"] == {labels: 6}
    assert found["cortex_batch_failed"] == {labels: 2}
    assert found["cortex_time_per_batch_sum"] == {labels: 3.5}
    assert found["cortex_time_per_batch_count"] == {labels: 6}
    buckets = {dict(key)["le"]: value for key, value in found["cortex_time_per_batch_bucket"].items()}
    assert buckets == {"0.1": 1, "1.0": 3, "+Inf": 6}
    assert not any("_created" in name for name in found)


async def test_a_jobs_series_stay_for_a_while_after_its_end(gateway: Gateway) -> None:
    now = time.time()
    long_running = job("9")  # older than anything that the newest jobs are searched for
    gateway.asked.jobs = {
        "1": over("1", now - 60, created_time=Timestamp(seconds=int(now))),
        "2": over("2", now - 3600, created_time=Timestamp(seconds=int(now))),
        "3": over("3", now - 3600),
        "9": long_running,
    }

    async def shown() -> set[str]:
        return {
            dict(labels)["job_id"]
            for labels in samples((await gateway.get("/metrics")).body.decode())["cortex_batch_succeeded"]
        }

    assert await shown() == {"1", "9"}
    gateway.asked.jobs["9"] = over("9", now)
    assert await shown() == {"1", "9"}
    assert await shown() == {"1", "9"}


async def test_metrics_of_the_gateway_do_not_need_the_scheduler(gateway: Gateway) -> None:
    await gateway.get(f"/batch/digits?jobID={JOB_ID}")
    up = samples((await gateway.get("/metrics")).body.decode())
    assert up["cortex_gateway_scheduler_up"] == {(): 1}
    counted = (("method", "GET"), ("route", "/batch/{api_name}"), ("status", "200"))
    assert up["cortex_gateway_requests_total"][counted] == 1
    gateway.asked.error = CortexError("system.unavailable", "away", Category.UNAVAILABLE)
    down = samples((await gateway.get("/metrics")).body.decode())
    assert down["cortex_gateway_scheduler_up"] == {(): 0}
    assert "cortex_batch_succeeded" not in down


async def test_ids_are_returned_and_passed_on(gateway: Gateway) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await gateway.get(
        f"/batch/digits?jobID={JOB_ID}", X_Request_Id="mine-1", traceparent=f"00-{trace}-00f067aa0ba902b7-01"
    )
    assert (answer.headers["x-request-id"], answer.headers["x-trace-id"]) == ("mine-1", trace)
    metadata = gateway.asked.metadata[-1]
    assert metadata["x-request-id"] == "mine-1"
    assert str(metadata["traceparent"]).startswith(f"00-{trace}-")
    for bad in ("x" * 129, "a b", "ü"):
        made = await gateway.request(
            "GET", "/healthz", headers={"X-Request-Id": bad.encode("latin-1").decode("latin-1")}
        )
        assert len(made.headers["x-request-id"]) == 16


async def test_two_requests_have_two_ids(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(gateway.get("/verifycortex") for _ in range(4)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
    assert len({answer.headers["x-trace-id"] for answer in answers}) == 4
