"""Envoy's whole file."""

import yaml

from services.gateway.envoy.any_type import Config, extension
from services.gateway.envoy.clusters import clusters
from services.gateway.envoy.listeners import listeners
from services.gateway.envoy.settings import Settings
from services.gateway.envoy.tracing import SERVICE

_MAX_CLIENTS = 20_000
_HEAD = "# Made by `cortex envoy-config`: change its settings, not this file.\n"
_LOG_LINE = {"time": "%Y-%m-%dT%T.%eZ", "level": "%l", "service": SERVICE, "logger": "%n", "message": "%j"}


def bootstrap(settings: Settings) -> Config:
    """The file as a dictionary."""
    return {
        "admin": {"address": settings.admin.config},
        "static_resources": {"listeners": listeners(settings), "clusters": clusters(settings)},
        "overload_manager": {
            "resource_monitors": [
                extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=_MAX_CLIENTS,
                )
            ]
        },
        "application_log_config": {"log_format": {"json_format": _LOG_LINE}},
    }


def document(settings: Settings) -> str:
    """The file as YAML."""
    return _HEAD + yaml.dump(bootstrap(settings), Dumper=_Plain, sort_keys=False, width=120)


class _Plain(yaml.SafeDumper):
    """Writes what stands in several places several times, without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True
