"""A line of JSON for each request that was answered, on standard output. Probes are left out."""

from services.gateway.envoy.any_type import Config, extension
from services.gateway.envoy.filters import TOKEN_METADATA
from services.gateway.envoy.routes import PROBES
from services.gateway.envoy.tracing import SERVICE

_LINE = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "service": SERVICE,
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "host": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "user": f"%DYNAMIC_METADATA({TOKEN_METADATA}:token:sub)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "upstream": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
}


def access_log() -> Config:
    """Envoy's access log."""
    probe = {"safe_regex": {"regex": "|".join(PROBES)}}
    return extension(
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"json_format": _LINE},
    ) | {"filter": {"header_filter": {"header": {"name": ":path", "string_match": probe, "invert_match": True}}}}
