"""From the JSON of a submission, of a retry and of a change to the scheduler's request: which fields there are."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from cortex.batch.v1 import batch_service_pb2
from services.common import json_text
from services.common.errors import CortexError
from services.gateway import fields, problems
from services.gateway.fields import Expected, Field, Table

_Request = TypeVar("_Request", bound=Message)

_BODY = "the body"
_FIRST_LINE = "the first line"


@dataclass(frozen=True)
class Parsed(Generic[_Request]):
    """A request for the scheduler, and what was passed over in making it."""

    request: _Request
    warnings: list[str]


Submission = Parsed[batch_service_pb2.SubmitJobRequest]
StreamHead = Parsed[batch_service_pb2.SubmitJobStreamRequest]
"""The first message of a stream, before the items."""
Retry = Parsed[batch_service_pb2.RetryJobRequest]
Change = Parsed[batch_service_pb2.UpdateJobRequest]

_FILES: Table = {
    "s3_paths": Field("s3_paths", fields.strings),
    "includes": Field("includes", fields.strings),
    "excludes": Field("excludes", fields.strings),
    "batch_size": Field("batch_size", fields.integer),
}
_ITEMS: Table = {"items": Field("items_json", fields.array), "batch_size": Field("batch_size", fields.integer)}
_INPUTS: Table = {
    "item_list": Field("item_list", table=_ITEMS),
    "file_path_lister": Field("file_path_lister", table=_FILES),
    "delimited_files": Field("delimited_files", table=_FILES),
}
_QUEUE: Table = {
    "arn": Field("arn", fields.string),
    "max_receive_count": Field("max_receive_count", fields.integer),
}
_RETRIES: Table = {
    "max_attempts": Field("max_attempts", fields.integer),
    "backoff_seconds": Field("backoff_seconds", fields.number),
    "max_backoff_seconds": Field("max_backoff_seconds", fields.number),
    "on": Field("on", fields.integers),
}
_SCALING: Table = {
    "batches_per_worker": Field("batches_per_worker", fields.integer),
    "max_workers": Field("max_workers", fields.integer),
}
_WEBHOOK: Table = {"url": Field("url", fields.string), "secret": Field("secret", fields.string)}
_JOB: Table = {
    "workers": Field("workers", fields.integer, _SCALING, "worker_scaling"),
    "timeout": Field("timeout_seconds", fields.integer),
    "batch_timeout": Field("batch_timeout_seconds", fields.integer),
    "sqs_dead_letter_queue": Field("sqs_dead_letter_queue", table=_QUEUE),
    "config": Field("config_json", fields.text),
    "retries": Field("retries", table=_RETRIES),
    "split_failed": Field("split_failed", fields.boolean),
    "results": Field("results", fields.boolean, {"s3_path": Field("s3_path", fields.string)}),
    "max_failed_percent": Field("max_failed_percent", fields.number),
    "webhook": Field("webhook", table=_WEBHOOK),
    "queue_name": Field("queue_name", fields.string),
}
_SUBMISSION: Table = {**_JOB, **_INPUTS}
_STREAM_HEAD: Table = {
    **{name: field.within("job") for name, field in _JOB.items()},
    "batch_size": Field("batch_size", fields.integer),
}
_RETRY: Table = {"workers": Field("workers", fields.integer)}
_CHANGE: Table = {"workers": Field("workers", fields.integer), "paused": Field("paused", fields.boolean)}

QUERY_FLAGS = ("results", "split_failed")
"""Fields of a stream that a query may give as true or false."""
QUERY_NUMBERS = ("workers", "batch_size", "timeout", "batch_timeout", "max_failed_percent")
"""Fields of a stream that a query may give as numbers."""


def parse(api_name: str, body: bytes, *, dry_run: bool = False, request_id: str = "") -> Submission:
    """The submission that a request's body is. Raises `CortexError` that names the field and what it takes."""
    _check_text(body, _BODY)
    request = batch_service_pb2.SubmitJobRequest(api_name=api_name, dry_run=dry_run, request_id=request_id)
    unknown = fields.fill(request, _SUBMISSION, json_text.members(body, _BODY))
    return Submission(request, fields.warnings(unknown))


def parse_first_line(api_name: str, line: bytes, *, request_id: str = "") -> StreamHead:
    """What the first line of a stream asks for: any field of a submission but the inputs. Raises like `parse`."""
    _check_text(line, _FIRST_LINE)
    if not line.lstrip(json_text.WHITE_SPACE).startswith(b"{"):
        raise CortexError(
            json_text.MALFORMED,
            f"{_FIRST_LINE} must be a JSON object with `workers` and `batch_size`, not {json_text.described(line)}; "
            "where every line is an item, give these two in the query",
        )
    members = json_text.members(line, _FIRST_LINE)
    for name, value in members.items():
        if name.lower() in _INPUTS and value != b"null":
            text = "the items are the lines that follow, so an input has no place in the first one"
            raise CortexError("job.conflicting_fields", f"{name.lower()}: {text}")
    request = _stream_head(api_name, request_id)
    request.first_line = 2
    unknown = fields.fill(request, _STREAM_HEAD, members)
    if not request.job.HasField("workers") and not request.job.HasField("worker_scaling"):
        raise CortexError(
            "configreader.must_be_defined",
            f"workers: {_FIRST_LINE} has no such key; it must be an object with `workers` and `batch_size`, unless "
            "these two are in the query: then every line is an item",
        )
    return StreamHead(request, fields.warnings(unknown))


def parse_query(api_name: str, given: Mapping[str, str], *, request_id: str = "") -> StreamHead:
    """What a query asks for, where every line of the body is an item. `given` are `QUERY_FLAGS` and `QUERY_NUMBERS`.

    Raises `CortexError` that names the parameter and what it takes.
    """
    request = _stream_head(api_name, request_id)
    for name, value in given.items():
        try:
            fields.put(request, _STREAM_HEAD[name], value.encode())
        except Expected as expected:
            raise problems.bad_query(name, value, str(expected).removesuffix(" or an object")) from None
    return StreamHead(request, [])


def _stream_head(api_name: str, request_id: str) -> batch_service_pb2.SubmitJobStreamRequest:
    job = batch_service_pb2.SubmitJobRequest(api_name=api_name, request_id=request_id)
    return batch_service_pb2.SubmitJobStreamRequest(job=job, first_line=1)


def parse_retry(api_name: str, job_id: str, body: bytes, *, request_id: str = "") -> Retry:
    """What a retry's body asks for; none asks for nothing in particular. Raises like `parse`."""
    request = batch_service_pb2.RetryJobRequest(api_name=api_name, job_id=job_id, request_id=request_id)
    if not body.strip():
        return Retry(request, [])
    _check_text(body, _BODY)
    return Retry(request, fields.warnings(fields.fill(request, _RETRY, json_text.members(body, _BODY))))


def parse_change(api_name: str, job_id: str, body: bytes) -> Change:
    """What is to change about a job. Raises like `parse`, and where nothing is."""
    _check_text(body, _BODY)
    request = batch_service_pb2.UpdateJobRequest(api_name=api_name, job_id=job_id)
    warnings = fields.warnings(fields.fill(request, _CHANGE, json_text.members(body, _BODY)))
    if not request.HasField("workers") and not request.HasField("paused"):
        text = "; ".join(["there is nothing to change: give `workers`, `paused` or both", *warnings])
        raise CortexError("configreader.must_be_defined", text)
    return Change(request, warnings)


def _check_text(text: bytes, name: str) -> None:
    if not text.strip():
        missing = "the request has no body" if name == _BODY else f"{name} is empty"
        raise CortexError(json_text.MALFORMED, f"{missing}; a JSON object is expected")
    if text.startswith(codecs.BOM_UTF8):
        what = f"{name} begins with a byte order mark (EF BB BF); JSON must not have one"
        raise CortexError(json_text.MALFORMED, what)
    json_text.check_utf8(text, name)
    json_text.check_depth(text, name)
