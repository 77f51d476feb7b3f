"""gRPC channels to our own services, all made here.

    unix:PATH, HOST:PORT              one server
    dns:///NAME:PORT, ipv4:A:1,B:2    several replicas, of which one leads

Of several the one is called that serves: a health watch runs to each (https://grpc.io/docs/guides/health-checking/), a
standby says NOT_SERVING, and calls go to the others, in turn. Names are looked up again at once when a connection
breaks. Replicas run on other machines, which may vanish without a word, so their connections are asked for signs of
life; a server of ours allows that every ten seconds.
"""

import json
from collections.abc import Sequence
from typing import Any

import grpc

from services.common.names import BATCH_SERVICE

_OF_SEVERAL = (
    (
        "grpc.service_config",
        json.dumps(
            {
                "loadBalancingConfig": [{"round_robin": {}}],
                "healthCheckConfig": {"serviceName": BATCH_SERVICE},
            }
        ),
    ),
    ("grpc.service_config_disable_resolution", 1),  # what a DNS server says is not for us
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 12_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_NO_PROXY = ("grpc.enable_http_proxy", 0)  # the shell's http_proxy is not for us


def has_replicas(target: str) -> bool:
    """The target may have several addresses."""
    return target.startswith(("dns:", "ipv4:", "ipv6:"))


def open_channel(
    target: str, options: Sequence[tuple[str, Any]], interceptors: Sequence[grpc.aio.ClientInterceptor] = ()
) -> grpc.aio.Channel:
    """A channel that connects when it is first used, and again whenever it must."""
    of_several = _OF_SEVERAL if has_replicas(target) else ()
    return grpc.aio.insecure_channel(target, (*options, *of_several, _NO_PROXY), interceptors=interceptors)
