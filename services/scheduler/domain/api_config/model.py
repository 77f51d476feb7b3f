"""A checked API configuration, defaults filled in. Every instance obeys all rules: only `parse` makes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from services.scheduler.domain.api_config.document import Value
from services.scheduler.domain.api_config.quantities import Quantity

KIND = "BatchAPI"
"""The one kind of API that is served."""

RESERVED_PORTS = frozenset((8888, 15000))
"""Ports that Cortex's sidecars listen on beside the user's containers."""

RESERVED_CONTAINER_NAMES = frozenset(("dequeuer", "proxy"))
"""Names of the sidecars."""


@dataclass(frozen=True, slots=True)
class HttpGet:
    """Holds when a GET answers 200-399."""

    port: int
    path: str


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """Holds when a connection opens."""

    port: int


@dataclass(frozen=True, slots=True)
class Exec:
    """Holds when a command, run in the container, exits 0."""

    command: tuple[str, ...]


ProbeHandler: TypeAlias = HttpGet | TcpSocket | Exec


@dataclass(frozen=True, slots=True)
class Probe:
    """A question asked over and over, as Kubernetes asks it."""

    handler: ProbeHandler
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    """Answers in a row that turn "no" into "yes"."""
    failure_threshold: int = 3
    """Failures in a row that turn "yes" into "no"."""


@dataclass(frozen=True, slots=True)
class Compute:
    """What one container asks of the machine. None: nothing asked."""

    cpu: Quantity | None
    """Cores; `.milli` is millicores."""
    mem: Quantity | None
    """Bytes; `.whole` is bytes."""
    gpu: int = 0
    inf: int = 0
    """Inferentia chips."""
    shm: Quantity | None = None
    """Size of /dev/shm in bytes."""


@dataclass(frozen=True, slots=True)
class Container:
    """One of the user's containers."""

    name: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...] | None
    env: Mapping[str, str]
    """In the file's order."""
    readiness_probe: Probe | None
    liveness_probe: Probe | None
    compute: Compute


@dataclass(frozen=True, slots=True)
class Pod:
    """What one worker runs."""

    port: int
    """Where one of the containers takes the batches."""
    max_concurrency: int
    """Batches in the container at once."""
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """One API of a configuration file."""

    name: str
    pod: Pod
    node_groups: tuple[str, ...] | None
    """Where its workers may run; None for anywhere."""
    endpoint: str
    """The path that takes its jobs, with a slash in front and none behind."""
    queue_name: str
    """The Kueue queue that its jobs wait in, on Kubernetes; `""` for none."""
    index: int
    """Which API of the file, from 0."""
    file_name: str
    submitted: Mapping[str, Value]
    """The configuration as it was written."""
