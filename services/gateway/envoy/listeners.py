"""The ports, and how HTTP is spoken on them."""

from typing import Any

from services.gateway.envoy import filters, replies, routes
from services.gateway.envoy.access_log import access_log
from services.gateway.envoy.address import Address
from services.gateway.envoy.any_type import Config, extension, typed
from services.gateway.envoy.settings import Settings, Tls
from services.gateway.envoy.tracing import tracing

_BUFFER_BYTES = 1024 * 1024
"""Of a request or an answer that is read faster than it can be handed on; then its sender has to wait."""
_KEEP_ALIVE = (
    (1, 9, 1),  # SOL_SOCKET, SO_KEEPALIVE; Linux's numbers, wherever the file is made
    (6, 4, 60),  # IPPROTO_TCP, TCP_KEEPIDLE, seconds
    (6, 5, 20),  # TCP_KEEPINTVL
    (6, 6, 3),  # TCP_KEEPCNT
)

_REQUEST_ID = typed(
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    pack_trace_reason=False,  # a client's own id stays as it is
    use_request_id_for_trace_sampling=False,  # and one that is no UUID is traced too
)


def listeners(settings: Settings) -> list[Config]:
    """All listeners."""
    found = [_listener("edge", settings.listen, _edge(settings), settings.tls)]
    if settings.in_cluster is not None:
        http = _http(settings, "in_cluster", routes.in_cluster(settings.in_cluster), [filters.router()])
        found.append(_listener("in_cluster", settings.in_cluster.listen, http))
    if settings.observe is not None:
        http = _manager("observe", routes.observe(), [filters.router()])
        found.append(_listener("observe", settings.observe, http))
    return found


def _edge(settings: Settings) -> Config:
    return _http(settings, "edge", routes.edge(settings), filters.edge(settings))


def _listener(name: str, address: Address, http: Config, tls: Tls | None = None) -> Config:
    return {
        "name": name,
        "address": address.config,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "socket_options": [
            {"level": level, "name": option, "int_value": value} for level, option, value in _KEEP_ALIVE
        ],
        "filter_chains": [{"filters": [http], **({"transport_socket": _tls(tls)} if tls else {})}],
    }


def _tls(tls: Tls) -> Config:
    certificate = {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.key}}
    return extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [certificate],
        },
    )


def _http(settings: Settings, name: str, table: Config, chain: list[Config]) -> Config:
    """HTTP for clients: nothing that they say about who and where they are is believed, unless proxies said it."""
    traced = {"tracing": tracing()} if settings.otlp is not None else {}
    return _manager(
        name,
        table,
        chain,
        use_remote_address=True,
        xff_num_trusted_hops=settings.trusted_hops,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        request_id_extension={"typed_config": _REQUEST_ID},
        access_log=[access_log()],
        **traced,
    )


def _manager(name: str, table: Config, chain: list[Config], **more: Any) -> Config:
    return extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config=table,
        http_filters=chain,
        local_reply_config=replies.config(),
        server_header_transformation="PASS_THROUGH",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        proxy_100_continue=True,  # so that the gateway can refuse a body before it is sent
        request_headers_timeout="20s",
        stream_idle_timeout="0s",
        common_http_protocol_options={"idle_timeout": "900s", "headers_with_underscores_action": "DROP_HEADER"},
        http2_protocol_options={
            "max_concurrent_streams": 1000,
            "initial_stream_window_size": 1024 * 1024,
            "initial_connection_window_size": 4 * 1024 * 1024,
            "connection_keepalive": {"interval": "30s", "timeout": "20s"},
        },
        **more,
    )
