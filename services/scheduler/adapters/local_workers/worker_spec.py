"""What a dequeuer is told, made from an API's configuration.

The configuration's defaults are filled in already. A probe of `pod.port` follows the worker to the port that it got.
"""

from collections.abc import Mapping

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.scheduler.adapters.probe_message import probe_message
from services.scheduler.domain.api_config.model import ApiConfig, Container
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.domain.model.worker import WorkerRecord

OTLP_PREFIX = "OTEL_EXPORTER_OTLP_"
"""Environment variables that say where telemetry goes."""


def worker_spec(
    config: ApiConfig, api: ApiVersion, job: JobSpec, worker: WorkerRecord, port: int, telemetry: Mapping[str, str]
) -> pb.WorkerSpec:
    """A worker's specification, as far as it follows from what was deployed and submitted.

    `telemetry` goes to the containers that do not say themselves where their telemetry goes.
    """
    ports = {config.pod.port: port}
    return pb.WorkerSpec(
        api_name=api.name,
        api_id=api.api_id,
        job_id=job.job_id,
        worker=worker.slot,
        worker_id=worker.worker_id,
        port=port,
        max_concurrency=config.pod.max_concurrency,
        batch_timeout_seconds=job.batch_timeout_seconds,
        containers=[_container(container, ports, telemetry) for container in config.pod.containers],
    )


def _container(container: Container, ports: Mapping[int, int], telemetry: Mapping[str, str]) -> pb.Container:
    env = dict(container.env)
    if not any(name.startswith(OTLP_PREFIX) for name in env):
        env = {**telemetry, **env}
    mem = container.compute.mem
    return pb.Container(
        name=container.name,
        image=container.image,
        command=container.command,
        args=container.args or (),
        env=[pb.EnvVar(name=name, value=value) for name, value in env.items()],
        readiness_probe=probe_message(container.readiness_probe, ports),
        liveness_probe=probe_message(container.liveness_probe, ports),
        memory_bytes=mem.whole if mem is not None else None,
    )
