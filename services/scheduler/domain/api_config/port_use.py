"""What a configuration says about ports: which it probes, and whether it can be told another."""

import re
from collections.abc import Iterator

from services.scheduler.domain.api_config.model import ApiConfig, Container, Exec

_MENTION = re.compile(r"(?<![A-Za-z0-9_])CORTEX_PORT(?![A-Za-z0-9_])")


def mentions_port(config: ApiConfig) -> bool:
    """Whether any `command`, `args` or `env` mentions CORTEX_PORT, so that the worker follows it to another port.

    Counts `$(CORTEX_PORT)`, `$CORTEX_PORT`, `${CORTEX_PORT}` and the bare name (`os.environ["CORTEX_PORT"]`).
    """
    return any(_MENTION.search(text) for each in config.pod.containers for text in _texts(each))


def probe_ports(config: ApiConfig) -> frozenset[int]:
    """Every port that a readiness or liveness probe asks."""
    probes = (probe for each in config.pod.containers for probe in (each.readiness_probe, each.liveness_probe))
    return frozenset(probe.handler.port for probe in probes if probe and not isinstance(probe.handler, Exec))


def _texts(container: Container) -> Iterator[str]:
    yield from container.command
    yield from container.args or ()
    yield from container.env.values()
