"""What a configuration says about ports: which it probes, whether it can be told another, what is probed unasked."""

import re
from collections.abc import Iterator

from services.scheduler.domain.api_config.model import ApiConfig, Container, Exec, Pod, Probe, TcpSocket

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


def implicit_readiness_probe(pod: Pod) -> Probe | None:
    """The probe that is added to the containers' own: a connection to `pod.port`, unless one of them asks that.

    Without it a container without probes would be sent batches before its server listens.
    """
    handler = TcpSocket(pod.port)
    if any(each.readiness_probe and each.readiness_probe.handler == handler for each in pod.containers):
        return None
    return Probe(
        handler,
        initial_delay_seconds=1,
        timeout_seconds=1,
        period_seconds=1,
        success_threshold=1,
        failure_threshold=1,
    )


def _texts(container: Container) -> Iterator[str]:
    yield from container.command
    yield from container.args or ()
    yield from container.env.values()
