"""The first span of a trace, or the next one of a client's: W3C context comes in, and goes on to both upstreams."""

from services.gateway.envoy.any_type import Config, extension

COLLECTOR = "collector"
"""The cluster that spans are sent to."""
SERVICE = "cortex-edge"


def tracing() -> Config:
    """Envoy's tracer. Whether a trace is kept is the client's choice, where it made one; else it is."""
    return {
        "random_sampling": {"value": 100},
        "operation": "%REQ(:METHOD)%",  # the span's name; paths hold ids, which names should not
        "provider": extension(
            "envoy.tracers.opentelemetry",
            "envoy.config.trace.v3.OpenTelemetryConfig",
            grpc_service={"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "2s"},
            service_name=SERVICE,
        ),
    }
