"""What Envoy answers by itself, in our words: `{"kind", "message"}` over HTTP, a status with ErrorInfo over gRPC.

Envoy takes the first mapper that matches. A gRPC client gets its status in headers, so the details are made here, once,
and stand in the file; they must say exactly what the status says, which is why those texts are fixed.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.common.errors import DOMAIN
from services.common.names import MAX_SUBMISSION_BYTES
from services.gateway.envoy.any_type import Config, extension

ENVOYS_WORDS = "%LOCAL_REPLY_BODY%"

_IS_GRPC: Config = {
    "header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}
}
_LACKS_KEYS: Config = {
    "extension_filter": extension(
        "envoy.access_loggers.extension_filters.cel",
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        expression="response.code_details.contains('Jwks_remote_fetch_is_failed')",
    )
}


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    kind: str
    message: str
    """For people; over HTTP Envoy's own words may be in it."""
    code: grpc.StatusCode
    """What Envoy makes of the status where gRPC is spoken."""
    call_message: str = ""
    """Instead of `message`, over gRPC."""
    retry_after_s: int | None = None


_TOKEN = "send a valid token in the header `Authorization: Bearer TOKEN`"  # noqa: S105  # says how
_AWAY = "whoever should answer is being restarted, or away: try again in a few seconds"
_TOO_MANY = "too many requests come from your address: wait, then try again"
_TOO_LARGE = (
    f"the request's body is larger than {MAX_SUBMISSION_BYTES} bytes ({MAX_SUBMISSION_BYTES // 2**20} MiB): send the "
    "items as a stream (Content-Type: application/x-ndjson), or items that name their data"
)

REPLIES = (
    Reply(
        400,
        "endpoints.malformed_request",
        f"the edge cannot read this request: {ENVOYS_WORDS}",
        grpc.StatusCode.INTERNAL,
        "the edge cannot read this call",
    ),
    Reply(
        401,
        "edge.unauthenticated",
        f"{ENVOYS_WORDS}: {_TOKEN}",
        grpc.StatusCode.UNAUTHENTICATED,
        f"no valid token: {_TOKEN}",
    ),
    Reply(
        403,
        "edge.forbidden",
        ENVOYS_WORDS,
        grpc.StatusCode.PERMISSION_DENIED,
        "this token, or this port, is not for this call",
    ),
    Reply(
        404,
        "endpoints.not_found",
        ENVOYS_WORDS,
        grpc.StatusCode.UNIMPLEMENTED,
        "no such gRPC service is served here",
    ),
    Reply(408, "endpoints.request_timeout", "the request came too slowly", grpc.StatusCode.UNKNOWN),
    Reply(413, "batchapi.request_size_exceeds_limit", _TOO_LARGE, grpc.StatusCode.UNKNOWN),
    Reply(429, "edge.too_many_requests", _TOO_MANY, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=1),
    Reply(431, "endpoints.headers_too_large", "the request's headers are too large", grpc.StatusCode.UNKNOWN),
    *(
        Reply(status, "system.unavailable", _AWAY, grpc.StatusCode.UNAVAILABLE, retry_after_s=2)
        for status in (502, 503, 504)
    ),
)


NO_KEYS = Reply(
    503,
    "system.unavailable",
    "the keys of the tokens' issuer cannot be fetched, so no token can be checked: see the edge's log",
    grpc.StatusCode.UNAVAILABLE,
    retry_after_s=2,
)
"""Envoy says 401, as if the token were bad."""


def config(replies: Sequence[Reply] = REPLIES) -> Config:
    """Envoy's `local_reply_config`."""
    no_keys = [mapper | {"status_code": NO_KEYS.status} for mapper in _mappers(NO_KEYS, _LACKS_KEYS)]
    return {
        "mappers": [*no_keys, *(mapper for reply in replies for mapper in _mappers(reply, _has_status(reply.status)))],
        "body_format": _json("system.unexpected_error", ENVOYS_WORDS),
    }


def _mappers(reply: Reply, when: Config) -> list[Config]:
    """How an answer is put for a call, and for every other request."""
    message = reply.call_message or reply.message
    details = {"grpc-status-details-bin": _details(reply.code, reply.kind, message)}
    retry_after = {} if reply.retry_after_s is None else {"Retry-After": str(reply.retry_after_s)}
    return [
        {
            "filter": {"and_filter": {"filters": [when, _IS_GRPC]}},
            "headers_to_add": _headers(details),
            "body_format_override": {"text_format_source": {"inline_string": message}},
        },
        {
            "filter": when,
            "headers_to_add": _headers(retry_after),
            "body_format_override": _json(reply.kind, reply.message),
        },
    ]


def _details(code: grpc.StatusCode, kind: str, message: str) -> str:
    """A google.rpc.Status as metadata carries it."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=kind, domain=DOMAIN))
    number: code_pb2.Code = code.value[0]
    status = status_pb2.Status(code=number, message=message, details=[detail])
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


def _has_status(status: int) -> Config:
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "_"}}}}


def _headers(headers: dict[str, str]) -> list[Config]:
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in headers.items()
    ]


def _json(kind: str, message: str) -> Config:
    return {"json_format": {"kind": kind, "message": message}}
