"""The `spec` document of a deployed API, and the ids in it.

The document is the configuration with its defaults, in the shape that Cortex's clients decode, and what deploying it
added. It is kept in the ledger as the API's only description: `load_api` reads it back by the rules it was
checked with.

- `pod_id` (64 hex digits): hash of what runs: name, kind, pod, and the directory it runs in (the configuration file's,
  where its name is an absolute path).
- `spec_id` (32): hash of all that was configured: `pod_id`, networking, node groups and queue. While it stays the same
  there is nothing to deploy.
- `deployment_id` (10): stays over updates; a new one for a forced deployment.
- `id` (60): `TIME-DEPLOYMENT-SPEC`, where TIME is `2^63-1 - nanoseconds` as 16 hex digits: newer versions sort first.
  It names one version and fits a Kubernetes label.

`key` and `metadata_root` are names that Cortex derived for its bucket; here they name no files.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from services.common.names import CONTRACT_VERSION
from services.scheduler.domain.api_config.model import (
    KIND,
    ApiConfig,
    Compute,
    Container,
    Exec,
    HttpGet,
    Pod,
    Probe,
    TcpSocket,
)
from services.scheduler.domain.api_config.parse import parse_api
from services.scheduler.domain.api_config.quantities import Quantity
from services.scheduler.domain.model.api import ApiVersion

Json: TypeAlias = dict[str, Any]


def pod_id(config: ApiConfig) -> str:
    """Identifies what runs."""
    return _hash(config.name, KIND, _pod(config.pod), working_directory(config))


def spec_id(config: ApiConfig) -> str:
    """Identifies all that was configured."""
    queue = (config.queue_name,) if config.queue_name else ()
    return _hash(pod_id(config), config.endpoint, config.node_groups, *queue)[:32]


def new_deployment_id(name: str, now_ns: int) -> str:
    """An id for a deployment that starts afresh."""
    return _hash(name, now_ns)[:10]


def working_directory(config: ApiConfig) -> str:
    """The directory of the configuration file where that is known (its name is an absolute path), else `""`."""
    path = PurePosixPath(config.file_name)
    return str(path.parent) if path.is_absolute() else ""


def to_version(config: ApiConfig, deployment_id: str, initial_deployment_ns: int, now_ns: int) -> ApiVersion:
    """The version of the API that comes into force at `now_ns`."""
    api_id = f"{2**63 - 1 - now_ns:016x}-{deployment_id}-{spec_id(config)}"
    document = {
        "name": config.name,
        "kind": KIND,
        "pod": _pod(config.pod),
        "node_groups": config.node_groups,
        "apis": None,
        "networking": {"endpoint": config.endpoint},
        "autoscaling": None,
        "update_strategy": None,
        "index": config.index,
        "file_name": config.file_name,
        "submitted_api_spec": config.submitted,
        "id": api_id,
        "spec_id": spec_id(config),
        "pod_id": pod_id(config),
        "deployment_id": deployment_id,
        "key": f"apis/{config.name}/api/{api_id}/{CONTRACT_VERSION}-spec.json",
        "initial_deployment_time": initial_deployment_ns,
        "last_updated": now_ns // 1_000_000_000,
        "metadata_root": f"apis/{config.name}/metadata",
    }
    if config.queue_name:  # Cortex has no such key
        document["queue_name"] = config.queue_name
    return ApiVersion(config.name, api_id, config.endpoint, _json(document), now_ns)


@dataclass(frozen=True, slots=True)
class Ids:
    """What a new version of a deployed API is compared with and takes over."""

    spec_id: str
    deployment_id: str
    initial_deployment_ns: int


def ids_of(version: ApiVersion) -> Ids:
    """The ids in a version's document."""
    document: Json = json.loads(version.spec_json)
    return Ids(document["spec_id"], document["deployment_id"], document["initial_deployment_time"])


def load_api(version: ApiVersion) -> ApiConfig:
    """The configuration that a version was made from."""
    document: Json = json.loads(version.spec_json)
    entry = {key: document[key] for key in ("name", "kind", "pod", "node_groups", "networking")}
    entry["queue_name"] = document.get("queue_name")
    config = parse_api(document["file_name"], document["index"], entry, reserved=())
    return replace(config, submitted=document["submitted_api_spec"])


def _pod(pod: Pod) -> Json:
    return {
        "port": pod.port,
        "max_concurrency": pod.max_concurrency,
        "containers": [_container(container) for container in pod.containers],
    }


def _container(container: Container) -> Json:
    return {
        "name": container.name,
        "image": container.image,
        "env": dict(container.env),
        "command": container.command,
        "args": container.args,
        "readiness_probe": _probe(container.readiness_probe),
        "liveness_probe": _probe(container.liveness_probe),
        "compute": _compute(container.compute),
    }


def _probe(probe: Probe | None) -> Json | None:
    if probe is None:
        return None
    handler = probe.handler
    return {
        "http_get": {"path": handler.path, "port": handler.port} if isinstance(handler, HttpGet) else None,
        "tcp_socket": {"port": handler.port} if isinstance(handler, TcpSocket) else None,
        "exec": {"command": handler.command} if isinstance(handler, Exec) else None,
        "initial_delay_seconds": probe.initial_delay_seconds,
        "timeout_seconds": probe.timeout_seconds,
        "period_seconds": probe.period_seconds,
        "success_threshold": probe.success_threshold,
        "failure_threshold": probe.failure_threshold,
    }


def _compute(compute: Compute) -> Json:
    return {
        "cpu": _text(compute.cpu),
        "mem": _text(compute.mem),
        "gpu": compute.gpu,
        "inf": compute.inf,
        "shm": _text(compute.shm),
    }


def _text(quantity: Quantity | None) -> str | None:
    return None if quantity is None else quantity.text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _hash(*parts: object) -> str:
    return hashlib.sha256(_json(parts).encode()).hexdigest()
