"""From a submission's JSON to SubmitJobRequest, and from a retry's to RetryJobRequest.

Only the two upper levels are looked at; the array of items and `config` go on as text. Names match as in Go's
encoding/json, which Cortex used: exactly, or in another case; the last of equal names counts; `null` means not given;
an integer is written as one. What values are allowed (at least 1, exactly one input) is the scheduler's to say.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import Message

from cortex.batch.v1 import batch_service_pb2
from services.common import json_text
from services.common.errors import CortexError

MAX_WARNINGS = 20
"""So many unknown names are told; a number stands for the others."""


@dataclass(frozen=True)
class Submission:
    """A request for the scheduler, and what was passed over in making it."""

    request: batch_service_pb2.SubmitJobRequest
    warnings: list[str]


@dataclass(frozen=True)
class Retry:
    """The same for the failed batches of an earlier job."""

    request: batch_service_pb2.RetryJobRequest
    warnings: list[str]


def parse(api_name: str, body: bytes, *, dry_run: bool = False, request_id: str = "") -> Submission:
    """The submission that a request's body is. Raises `CortexError` that names the field and what it takes."""
    _check_text(body)
    request = batch_service_pb2.SubmitJobRequest(api_name=api_name, dry_run=dry_run, request_id=request_id)
    unknown: list[str] = []
    _fill(request, _SUBMISSION, json_text.members(body, "the body"), "", unknown)
    return Submission(request, _warnings(unknown))


def parse_retry(api_name: str, job_id: str, body: bytes) -> Retry:
    """What a retry's body asks for; none asks for nothing in particular. Raises like `parse`."""
    request = batch_service_pb2.RetryJobRequest(api_name=api_name, job_id=job_id)
    unknown: list[str] = []
    if body.strip():
        _check_text(body)
        _fill(request, _RETRY, json_text.members(body, "the body"), "", unknown)
    return Retry(request, _warnings(unknown))


def _check_text(body: bytes) -> None:
    if not body.strip():
        raise CortexError(json_text.MALFORMED, "the request has no body; a JSON object is expected")
    if body.startswith(codecs.BOM_UTF8):
        what = "the body begins with a byte order mark (EF BB BF); JSON must not have one"
        raise CortexError(json_text.MALFORMED, what)
    json_text.check_utf8(body, "the body")
    json_text.check_depth(body, "the body")


def _integer(value: bytes) -> int:
    number = int(value) if _INTEGER.fullmatch(value) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise _Expected("an integer" if number is None else "an integer of 64 bits")
    return number


def _string(value: bytes) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        raise _Expected("a string") from None


def _strings(value: bytes) -> list[str]:
    try:
        return msgspec.json.decode(value, type=list[str])
    except msgspec.DecodeError:
        raise _Expected("a list of strings") from None


def _array(value: bytes) -> str:
    if not value.startswith(b"["):
        raise _Expected("a list")
    return value.decode()


_Reader = Callable[[bytes], int | str | list[str]]
_Table = Mapping[str, tuple[str, "_Reader | _Table"]]
"""A field's name in JSON -> its name in the message, and how to read it: a function, or the table of an object."""

_FILES: _Table = {
    "s3_paths": ("s3_paths", _strings),
    "includes": ("includes", _strings),
    "excludes": ("excludes", _strings),
    "batch_size": ("batch_size", _integer),
}
_SUBMISSION: _Table = {
    "workers": ("workers", _integer),
    "timeout": ("timeout_seconds", _integer),
    "batch_timeout": ("batch_timeout_seconds", _integer),
    "sqs_dead_letter_queue": (
        "sqs_dead_letter_queue",
        {"arn": ("arn", _string), "max_receive_count": ("max_receive_count", _integer)},
    ),
    "config": ("config_json", bytes.decode),
    "item_list": ("item_list", {"items": ("items_json", _array), "batch_size": ("batch_size", _integer)}),
    "file_path_lister": ("file_path_lister", _FILES),
    "delimited_files": ("delimited_files", _FILES),
}

_RETRY: _Table = {"workers": ("workers", _integer)}

_INTEGER = re.compile(rb"-?\d{1,4000}")  # more digits than Python turns into a number


class _Expected(Exception):  # noqa: N818  # reads as the sentence it becomes
    """A value is not what the field takes."""


def _fill(message: Message, table: _Table, members: Mapping[str, bytes], path: str, unknown: list[str]) -> None:
    for name, value in members.items():
        known = name if name in table else name.lower()
        if known not in table:
            unknown.append(path + name)
        elif value != b"null":
            attribute, read = table[known]
            _set(message, attribute, read, value, path + known, unknown)


def _set(
    message: Any,  # reached by field names, which have no types
    attribute: str,
    read: "_Reader | _Table",
    value: bytes,
    path: str,
    unknown: list[str],
) -> None:
    if not callable(read):
        if not value.startswith(b"{"):
            raise _wrong_type(path, "an object", value)
        child = getattr(message, attribute)
        child.SetInParent()
        _fill(child, read, json_text.members(value, path), f"{path}.", unknown)
        return
    try:
        found = read(value)
    except _Expected as expected:
        raise _wrong_type(path, str(expected), value) from None
    if isinstance(found, list):
        getattr(message, attribute)[:] = found
    else:
        setattr(message, attribute, found)


def _wrong_type(path: str, expected: str, value: bytes) -> CortexError:
    given = f"{path}: must be {expected}, not {json_text.described(value)}"
    return CortexError("configreader.invalid_primitive_type", given)


def _warnings(unknown: list[str]) -> list[str]:
    told = [f"{json_text.shortened(name.encode())}: unknown field, ignored" for name in unknown[:MAX_WARNINGS]]
    more = len(unknown) - len(told)
    return [*told, f"{more} more unknown fields, ignored"] if more else told
