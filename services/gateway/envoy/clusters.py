"""Where requests go, and how it is known who can take them.

Active checks decide: the gateways are asked whether they live, the scheduler's replicas whether they lead, and a
replica that does not gets nothing, even if none does. Beside that, a gateway whose connections break is left out for a
while. Errors that a gateway answers do not count against it: it says why, and its peers would say the same.
"""

from collections.abc import Sequence
from typing import Any

from services.gateway.envoy.address import Address
from services.gateway.envoy.any_type import Config, extension, typed
from services.gateway.envoy.filters import JWKS
from services.gateway.envoy.routes import ADMIN, BATCH_SERVICE, GATEWAY, SCHEDULER
from services.gateway.envoy.settings import Jwt, Settings
from services.gateway.envoy.tracing import COLLECTOR

_CONNECT = "2s"
_MAX_REQUESTS = 100_000
"""At once, to one cluster. Each worker, and each job that is watched, is one."""
_GATEWAY_IDLE = "60s"
"""The gateway closes idle connections after 75 s: it must not be the one who does, or a request meets a closed door."""
_BY_DNS = {
    "cluster_type": extension(
        "envoy.clusters.dns",
        "envoy.extensions.clusters.dns.v3.DnsCluster",
        dns_lookup_family="V4_PREFERRED",
        dns_refresh_rate="2s",  # a headless service's addresses are new after every restart
        dns_failure_refresh_rate={"base_interval": "0.5s", "max_interval": "2s"},
    )
}


def clusters(settings: Settings) -> list[Config]:
    """All clusters."""
    found = [_gateway(settings.gateway), _scheduler(settings.scheduler)]
    if settings.otlp is not None:
        found.append(_cluster(COLLECTOR, [settings.otlp], http2=True))
    if settings.jwt is not None and settings.jwt.remote:
        found.append(_keys(settings.jwt))
    if settings.observe is not None:
        found.append(_cluster(ADMIN, [settings.admin]))
    return found


def _gateway(addresses: Sequence[Address]) -> Config:
    check = {"http_health_check": {"path": "/healthz", "host": "localhost"}}  # a name that every gateway answers to
    return _cluster(
        GATEWAY,
        addresses,
        idle_timeout=_GATEWAY_IDLE,
        health_checks=[_checked_each_second(check)],
        outlier_detection={
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 50,
        },
    )


def _scheduler(addresses: Sequence[Address]) -> Config:
    check = {"grpc_health_check": {"service_name": BATCH_SERVICE}}
    return _cluster(SCHEDULER, addresses, http2=True, health_checks=[_checked_each_second(check)])


def _keys(jwt: Jwt) -> Config:
    server = jwt.server
    tls = extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=server.host,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "validation_context": {
                "trusted_ca": {"filename": jwt.ca},
                "match_typed_subject_alt_names": [_named(server)],
            },
        },
    )
    return _cluster(JWKS, [server], transport_socket=tls)


def _named(server: Address) -> Config:
    return {"san_type": "DNS" if server.is_name else "IP_ADDRESS", "matcher": {"exact": server.host}}


def _cluster(
    name: str, addresses: Sequence[Address], *, http2: bool = False, idle_timeout: str = "3600s", **more: Any
) -> Config:
    endpoints = [{"endpoint": {"address": address.config}} for address in addresses]
    return {
        "name": name,
        **(_BY_DNS if any(address.is_name for address in addresses) else {"type": "STATIC"}),
        "connect_timeout": _CONNECT,
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {
            "thresholds": [{"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": _MAX_REQUESTS}]
        },
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "typed_extension_protocol_options": _protocol(http2=http2, idle_timeout=idle_timeout),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **more,
    }


def _protocol(*, http2: bool, idle_timeout: str) -> Config:
    two = {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}}
    explicit = two if http2 else {"http_protocol_options": {}}
    options = typed(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": idle_timeout},
        explicit_http_config=explicit,
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _checked_each_second(check: Config) -> Config:
    return {
        "timeout": "2s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_interval": "0.5s",
        "no_traffic_healthy_interval": "1s",
        "unhealthy_threshold": 3,
        "healthy_threshold": 1,
        **check,
    }
