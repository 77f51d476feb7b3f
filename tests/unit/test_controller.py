"""The controller's translations, and that the resources' schemas keep up with what they stand for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex.batch.v1.batch_service_pb2 import SubmitJobRequest
from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import CortexError
from services.controller.following import changes, check_config
from services.controller.job_status import is_finished, job_status
from services.controller.resources import condition
from services.controller.submission import api_file, job_request, noted
from services.scheduler.domain.api_config import parse_api_file

CRDS = Path(__file__).parents[2] / "deploy/helm/cortex-batch/crds"
FILES = {"s3_paths": ["s3://b/k"], "batch_size": 2}


def crd(name: str) -> dict[str, Any]:
    (version,) = yaml.safe_load((CRDS / f"{name}.yaml").read_text())["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def batch_job(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "j", "namespace": "n", "uid": "u-1", "generation": 3}
    return {"metadata": metadata, "spec": {"api_name": "hello", "workers": 2, "delimited_files": FILES, **spec}}


def test_every_field_of_a_submission_is_a_field_of_a_batch_job() -> None:
    fields = {field.name.removesuffix("_seconds") for field in SubmitJobRequest.DESCRIPTOR.fields}
    spec = set(crd("batchjobs")["properties"]["spec"]["properties"])
    assert fields - spec == {"item_list", "dry_run", "request_id"}
    assert spec - fields == {"config", "paused", "ttlSecondsAfterFinished"}


def test_of_a_submitted_job_all_is_immutable_but_what_can_be_passed_on() -> None:
    schema = crd("batchjobs")
    (rule,) = schema["x-kubernetes-validations"]
    fields = set(schema["properties"]["spec"]["properties"])
    free = {name for name in fields if f"self.spec.{name} == oldSelf.spec.{name}" not in rule["rule"]}
    assert free == {"workers", "paused", "ttlSecondsAfterFinished", "config"}  # the last is the controller's to check


def test_a_request_is_what_was_noted_and_the_uid_makes_it_one() -> None:
    resource = batch_job(
        timeout=9, config={"b": [1, 2.5], "a": "\u00e9"}, results={}, retries={"on": [503]}, split_failed=True
    )
    note = noted(resource)
    resource["spec"]["workers"] = 7
    request = job_request(resource, note, "")
    assert (request.api_name, request.request_id, request.workers, request.timeout_seconds) == ("hello", "u-1", 2, 9)
    assert request.config_json == '{"b":[1,2.5],"a":"\u00e9"}'
    assert (list(request.delimited_files.s3_paths), request.delimited_files.batch_size) == (["s3://b/k"], 2)
    assert request.HasField("results")
    assert list(request.retries.on) == [503]
    assert request.split_failed


def test_a_config_may_be_given_once() -> None:
    with pytest.raises(CortexError, match="config and config_json are given together"):
        job_request(batch_job(config=1, config_json="1"), {}, "")


def test_numbers_beyond_64_bits_travel_as_text() -> None:
    assert job_request(batch_job(config_json="12345678901234567890"), {}, "").config_json == "12345678901234567890"


def test_an_api_file_is_one_that_the_scheduler_reads() -> None:
    container = {"name": "api", "image": "i:1", "command": ["x"], "compute": {"cpu": 0.5}, "env": {"A": "\u2028 'x'"}}
    spec = {"pod": {"port": 9000, "containers": [container]}, "node_groups": None}
    (config,) = parse_api_file("f", api_file({"metadata": {"name": "hello"}, "spec": spec}))
    assert (config.name, config.pod.port, config.pod.containers[0].env["A"]) == ("hello", 9000, "\u2028 'x'")


def test_only_what_differs_is_changed() -> None:
    job = Job(api_name="hello", job_id="1", workers=2)
    assert changes({"workers": 2}, job) is None
    assert changes({}, job) is None
    changed = changes({"workers": 3, "paused": True}, job)
    assert changed is not None
    assert (changed.workers, changed.paused) == (3, True)
    resumed = changes({"workers": 2}, Job(workers=2, paused=True))
    assert resumed is not None
    assert (resumed.HasField("workers"), resumed.paused) == (False, False)


def test_a_config_that_changed_is_noticed() -> None:
    job = Job(config_json='{"a":1.0}')
    check_config({"config": {"a": 1}}, job)
    check_config({"config_json": "anything"}, job)
    with pytest.raises(CortexError, match="goes on with the config that it had"):
        check_config({}, job)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    resource = batch_job()
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = condition(resource, "Ready", True, "A", now=now)
    resource["status"] = {"conditions": [first]}
    later = now + timedelta(hours=1)
    assert condition(resource, "Ready", True, "B", now=later)["lastTransitionTime"] == first["lastTransitionTime"]
    assert condition(resource, "Ready", False, "B", now=later)["lastTransitionTime"] == "2026-01-02T04:04:05Z"


@pytest.mark.parametrize(
    ("status", "ends"),
    [(Job.STATUS_SUCCEEDED, ["Complete"]), (Job.STATUS_STOPPED, ["Failed"]), (Job.STATUS_RUNNING, [])],
)
def test_a_status_says_how_a_job_ended(status: "Job.Status.ValueType", ends: list[str]) -> None:
    job = Job(job_id="1", status=status, workers=2)
    job.worker_counts.ready = 2
    resource = batch_job()
    told = job_status(resource, job, condition(resource, "Accepted", True, "Submitted"), {"generation": 3})
    assert [each["type"] for each in told["conditions"]] == ["Accepted", *ends]
    assert is_finished({**resource, "status": told}) == bool(ends)
    assert told["worker_counts"] == {"ready": 2}


def test_a_status_has_only_what_its_schema_has() -> None:
    job = Job(job_id="1", status=Job.STATUS_STOPPED, reason="r", paused=True, total_batch_count=1)
    for message in (job.worker_counts, job.progress, job.completion, job.webhook, job.end_time, job.created_time):
        message.SetInParent()
    resource = batch_job()
    told = job_status(resource, job, condition(resource, "Accepted", True, "Submitted"), {"generation": 3})
    assert set(told) == set(crd("batchjobs")["properties"]["status"]["properties"])
