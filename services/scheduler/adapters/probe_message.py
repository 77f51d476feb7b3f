"""A probe as a dequeuer is told of it."""

from collections.abc import Mapping

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.scheduler.domain.api_config.model import Exec, HttpGet, Probe


def probe_message(probe: Probe | None, ports: Mapping[int, int]) -> pb.Probe | None:
    """The message; None for no probe. `ports`: where the configuration's ports have moved to."""
    if probe is None:
        return None
    message = pb.Probe(
        initial_delay_seconds=probe.initial_delay_seconds,
        timeout_seconds=probe.timeout_seconds,
        period_seconds=probe.period_seconds,
        success_threshold=probe.success_threshold,
        failure_threshold=probe.failure_threshold,
    )
    handler = probe.handler
    if isinstance(handler, Exec):
        message.exec.command.extend(handler.command)
    elif isinstance(handler, HttpGet):
        message.http_get.port = ports.get(handler.port, handler.port)
        message.http_get.path = handler.path
    else:
        message.tcp_socket.port = ports.get(handler.port, handler.port)
    return message
