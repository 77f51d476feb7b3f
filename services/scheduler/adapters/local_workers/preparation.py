"""Everything that one worker is told, put together: the configuration's part, and this machine's.

In a network namespace the gateway and the collector are reached through relays on loopback. Their ports inside are the
ones outside, unless the worker itself listens there.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.common.errors import CortexError
from services.scheduler.adapters.local_workers.directories import WorkerDirectories
from services.scheduler.adapters.local_workers.ports import PortChoice
from services.scheduler.adapters.local_workers.settings import LocalWorkerSettings
from services.scheduler.adapters.local_workers.worker_spec import OTLP_PREFIX, worker_spec
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.api_config.spec import working_directory
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import WorkerRecord

CHAINING_HOST = "ingressgateway-operator.istio-system.svc.cluster.local"
"""The name by which containers submit jobs of their own, as in a cluster, where it is a Service on port 80."""

CHAINING_PORT = 80

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker is told, and what its `cli.yaml` says."""

    spec: pb.WorkerSpec
    operator_endpoint: str


def prepare(
    settings: LocalWorkerSettings,
    directories: WorkerDirectories,
    environ: Mapping[str, str],
    config: ApiConfig,
    api: ApiVersion,
    job: JobRecord,
    worker: WorkerRecord,
    choice: PortChoice,
    token: str,
) -> Prepared:
    """Put it together, but for devices. `environ` is the environment that containers inherit."""
    endpoint, collector_port = settings.public_url, settings.collector_port
    relays = []
    if choice.namespace:
        used = {*choice.fixed, choice.port}
        if settings.http_socket is not None:
            inside = _unused(_port_of(endpoint), used)
            endpoint = f"http://127.0.0.1:{inside}"
            relays.append(pb.Relay(port=inside, unix_socket=settings.http_socket))
            used.add(inside)
            if settings.engine is not None and CHAINING_PORT not in used:
                relays.append(pb.Relay(port=CHAINING_PORT, unix_socket=settings.http_socket))
                used.add(CHAINING_PORT)
        if settings.collector_socket is not None and collector_port:
            collector_port = _unused(collector_port, used)
            relays.append(pb.Relay(port=collector_port, unix_socket=settings.collector_socket))
        elif collector_port:
            collector_port = 0
    telemetry = _telemetry(collector_port, environ)
    spec = worker_spec(config, api, job.spec, worker, choice.port, telemetry)
    spec.token = token
    spec.scheduler_address = settings.scheduler_address
    spec.orphan_seconds = settings.orphan_seconds
    spec.local.CopyFrom(
        pb.LocalRuntime(
            directory=str(directories.worker(worker.job_id, worker.slot)),
            log_directory=str(directories.logs(api.name, worker.job_id, worker.slot)),
            mount_namespace=sys.platform == "linux" and settings.engine is None,
            network_namespace=choice.namespace,
            relays=relays,
            lifeline_fd=settings.lifeline_fd,
            stop_grace_seconds=settings.stop_grace_seconds,
            working_directory=_working_directory(config, settings.working_dir) if settings.engine is None else "",
        )
    )
    if settings.engine is not None:
        _add_engine(spec, config, settings.engine, str(settings.data_dir))
    return Prepared(spec, endpoint)


def _add_engine(spec: pb.WorkerSpec, config: ApiConfig, program: str, system: str) -> None:
    """What containers of an engine need beside what processes do."""
    chains = any(relay.port == CHAINING_PORT for relay in spec.local.relays)
    names = [CHAINING_HOST] if chains else []
    engine = pb.EngineRuntime(program=program, system=system, host_names=names)
    spec.local.engine.CopyFrom(engine)
    for container, message in zip(config.pod.containers, spec.containers, strict=True):
        compute = container.compute
        message.cpu_millis = compute.cpu.milli if compute.cpu is not None else 0
        if compute.shm is not None:
            message.shm_bytes = compute.shm.whole


def add_variables(container: pb.Container, variables: Mapping[str, str]) -> None:
    """In front of its own, which may refer to them and may replace them."""
    own = list(container.env)
    del container.env[:]
    container.env.extend(pb.EnvVar(name=name, value=value) for name, value in variables.items())
    container.env.extend(own)


def _telemetry(collector_port: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Points the containers' own spans at our collector, unless the user's shell says where they go."""
    ours = {f"{OTLP_PREFIX}ENDPOINT", f"{OTLP_PREFIX}INSECURE"}
    if not environ.get(f"{OTLP_PREFIX}ENDPOINT", "unix:").startswith("unix:"):
        return {}
    if not collector_port or any(name.startswith(OTLP_PREFIX) and name not in ours for name in environ):
        return {}
    return {f"{OTLP_PREFIX}ENDPOINT": f"http://127.0.0.1:{collector_port}", f"{OTLP_PREFIX}PROTOCOL": "grpc"}


def _working_directory(config: ApiConfig, default: Path) -> str:
    """The API file's own directory; the default where it is not known."""
    own = working_directory(config)
    if not own:
        return str(default)
    try:
        there = Path(own).is_dir()
    except (OSError, ValueError):  # a name longer than this machine's may be, or with a zero byte
        there = False
    if not there:
        commands = ", ".join(f"`{container.command[0]}`" for container in config.pod.containers)
        raise CortexError(
            "worker.no_working_directory",
            f"{commands} of {config.name} is to run in {own[:200]}, where its file was deployed from, and there is no"
            " such directory on this machine: make it, or deploy the API from a directory that is here",
        )
    return own


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return int(parts.port or _DEFAULT_PORTS.get(parts.scheme, 80))


def _unused(preferred: int, used: set[int]) -> int:
    port = preferred
    while port in used:
        port = port + 1 if port < _LAST_PORT else 1024
    return port
