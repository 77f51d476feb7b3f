"""A pod's containers.

The user's are native sidecars: init containers that are restarted whenever they end. So the pod's one main container,
the dequeuer, decides when the pod ends, and starts when all of them run. The dequeuer asks the readiness probes itself
(Kubernetes would also ask while a batch is in a container that takes one connection after the other); liveness probes
are asked by the node's kubelet, which restarts what fails them.
"""

from cortex.version import version
from services.scheduler.adapters.kubernetes_workers.manifests.resources import (
    DEQUEUER_RESOURCES,
    container_resources,
)
from services.scheduler.adapters.kubernetes_workers.manifests.volumes import (
    CLIENT_DIRECTORY,
    PARTS_DIRECTORY,
    SPEC_DIRECTORY,
    WORKER_DIRECTORY,
    WORKER_FILE,
    container_mounts,
    dequeuer_mounts,
    parts_mounts,
)
from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work
from services.scheduler.adapters.kubernetes_workers.names import DEQUEUER
from services.scheduler.domain.api_config.model import Compute, Container, Exec, HttpGet, Probe

OTLP_PREFIX = "OTEL_EXPORTER_OTLP_"
"""Environment variables that say where telemetry goes."""

WRITE_DOCUMENT = "write-job-spec"
"""The dequeuer's argument that has it put the job's document together, and end."""

_LAST_WORDS = {"terminationMessagePolicy": "FallbackToLogsOnError"}


def init_containers(work: Work, parts: int) -> list[Json]:
    """The user's containers, in the configuration's order; before them what puts a large document together."""
    found = [_document_writer(work)] if parts else []
    found += [_user_container(work, index, each) for index, each in enumerate(work.config.pod.containers)]
    return found


def dequeuer(work: Work, parts: int) -> Json:
    """The main container."""
    return _own(work) | {
        "name": DEQUEUER,
        "env": [
            _variable("CORTEX_WORKER_SPEC", f"{WORKER_DIRECTORY}/{WORKER_FILE}"),
            {"name": "CORTEX_WORKER_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "CORTEX_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *_own_variables(work, parts),
        ],
        "volumeMounts": dequeuer_mounts(parts),
    }


def _document_writer(work: Work) -> Json:
    # Not called `dequeuer`: rules about the dequeuer's exit codes are not for it.
    return _own(work) | {
        "name": "job-spec-writer",
        "args": [WRITE_DOCUMENT],
        "env": _own_variables(work, parts=1),
        "volumeMounts": parts_mounts(),
    }


def _own(work: Work) -> Json:
    settings = work.settings
    return {
        "image": settings.dequeuer_image,
        **_pull_policy(work),
        **({"command": list(settings.dequeuer_command)} if settings.dequeuer_command else {}),
        "resources": DEQUEUER_RESOURCES,
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **_LAST_WORDS,
    }


def _own_variables(work: Work, parts: int) -> list[Json]:
    variables = {"CORTEX_LOG_LEVEL": work.settings.log_level}
    if parts:
        variables |= {"CORTEX_JOB_SPEC_PARTS": PARTS_DIRECTORY, "CORTEX_JOB_SPEC_DIRECTORY": SPEC_DIRECTORY}
    if work.settings.otlp_endpoint:
        variables[f"{OTLP_PREFIX}ENDPOINT"] = work.settings.otlp_endpoint
    return [_variable(name, value) for name, value in variables.items()]


def _user_container(work: Work, index: int, container: Container) -> Json:
    found: Json = {
        "name": container.name,
        "image": container.image,
        **_pull_policy(work),
        "restartPolicy": "Always",
        "command": list(container.command),
        "env": [_variable(name, value) for name, value in _environment(work, container).items()],
        "resources": container_resources(container.compute),
        "volumeMounts": container_mounts(index, container),
        **_LAST_WORDS,
    }
    if container.args:
        found["args"] = list(container.args)
    if container.liveness_probe is not None:
        found["livenessProbe"] = _probe(container.liveness_probe)
    if (security := _security(work, container.compute)) is not None:
        found["securityContext"] = security
    return found


def _environment(work: Work, container: Container) -> dict[str, str]:
    """The contract's first: what follows may refer to it as `$(NAME)`."""
    variables = {
        "CORTEX_PORT": str(work.config.pod.port),
        "CORTEX_VERSION": version(),
        "CORTEX_CLI_CONFIG_DIR": CLIENT_DIRECTORY,
        "CORTEX_LOG_LEVEL": "INFO",
    }
    if work.settings.otlp_endpoint and not any(name.startswith(OTLP_PREFIX) for name in container.env):
        variables |= {f"{OTLP_PREFIX}ENDPOINT": work.settings.otlp_endpoint, f"{OTLP_PREFIX}PROTOCOL": "grpc"}
    return variables | dict(container.env)


def _security(work: Work, compute: Compute) -> Json | None:
    """None: as the image and the cluster have it."""
    if work.settings.privileged:
        return {"privileged": True}
    if compute.inf:
        return {"capabilities": {"add": ["SYS_ADMIN", "IPC_LOCK"]}}
    return None


def _probe(probe: Probe) -> Json:
    handler = probe.handler
    asked: Json
    if isinstance(handler, Exec):
        asked = {"exec": {"command": list(handler.command)}}
    elif isinstance(handler, HttpGet):
        asked = {"httpGet": {"port": handler.port, "path": handler.path}}
    else:
        asked = {"tcpSocket": {"port": handler.port}}
    return asked | {
        "initialDelaySeconds": probe.initial_delay_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "periodSeconds": probe.period_seconds,
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
    }


def _pull_policy(work: Work) -> Json:
    policy = work.settings.image_pull_policy
    return {"imagePullPolicy": policy} if policy is not None else {}


def _variable(name: str, value: str) -> Json:
    return {"name": name, "value": value}
