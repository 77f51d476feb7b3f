"""From a resource's spec to the scheduler's request. What is allowed is the CRD's and the scheduler's to say."""

import json

from google.protobuf.json_format import ParseDict, ParseError

from cortex.batch.v1.batch_service_pb2 import SubmitJobRequest
from services.common.errors import CortexError
from services.common.kubernetes import Object
from services.controller.resources import uid_of

_AS_THEY_ARE = (
    "workers",
    "worker_scaling",
    "config_json",
    "file_path_lister",
    "delimited_files",
    "sqs_dead_letter_queue",
    "retries",
    "split_failed",
    "results",
    "max_failed_percent",
    "queue_name",
)
"""Fields that a request has as the spec has them."""
_RENAMED = {"timeout": "timeout_seconds", "batch_timeout": "batch_timeout_seconds"}


def api_file(resource: Object) -> bytes:
    """The configuration file that a BatchAPI stands for. JSON is YAML."""
    entry = {"name": resource["metadata"]["name"], "kind": "BatchAPI", **resource["spec"]}
    return json.dumps([entry]).encode()


def job_request(resource: Object, submission: Object, webhook_secret: str) -> SubmitJobRequest:
    """The request of a BatchJob. The resource's uid makes it one job however often it is sent.

    `submission` is what was noted before the first time: as many workers as then. Raises `CortexError`.
    """
    given = {**resource["spec"], "workers": submission.get("workers")}
    spec = {name: value for name, value in given.items() if value is not None}
    fields = {name: spec[name] for name in _AS_THEY_ARE if name in spec}
    fields |= {_RENAMED[name]: spec[name] for name in _RENAMED if name in spec}
    if "config" in spec:
        if "config_json" in spec:
            raise CortexError("job.conflicting_fields", "config and config_json are given together: give one of them")
        fields["config_json"] = json.dumps(spec["config"], separators=(",", ":"), ensure_ascii=False)
    if "webhook" in spec:
        fields["webhook"] = {"url": spec["webhook"].get("url", ""), "secret": webhook_secret}
    fields |= {"api_name": spec.get("api_name", ""), "request_id": uid_of(resource)}
    try:
        return ParseDict(fields, SubmitJobRequest())
    except ParseError as error:  # where the CRD's schema is not ours
        raise CortexError("configreader.invalid_primitive_type", f"spec: {error}") from error


def noted(resource: Object) -> Object:
    """What is noted before a resource is submitted: all that may still change in its spec afterwards."""
    note = {"generation": resource["metadata"].get("generation", 0)}
    workers = resource["spec"].get("workers")
    return note if workers is None else note | {"workers": workers}
