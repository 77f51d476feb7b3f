"""What the driver of local workers can be told."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from services.scheduler.adapters.local_workers.machine import Machine


@dataclass(frozen=True, slots=True)
class LocalWorkerSettings:
    """Where workers live, and what they must reach."""

    data_dir: Path
    """Absolute. `workers/` and `logs/` in it are the driver's."""
    scheduler_address: str
    """gRPC target of the scheduler; a unix socket, so that it is reached from network namespaces."""
    public_url: str
    """The gateway's base URL, as containers reach it."""
    http_socket: str | None
    """The gateway's unix socket, carried into network namespaces."""
    collector_socket: str | None
    """The collector's unix socket, carried into network namespaces."""
    collector_port: int
    """The collector's port for the containers' own spans; 0 for none."""
    working_dir: Path
    """Where containers run whose API file's own directory is not known."""
    lifeline_fd: int | None
    """Inherited by every dequeuer; see `services.common.lifecycle`."""
    engine: str | None = None
    """The program of a container engine that runs the containers from their images; None: they are processes."""
    machine: Machine = field(default_factory=Machine)
    """The devices that workers share."""
    orphan_seconds: float = 60.0
    """A dequeuer that finds no scheduler for so long ends. Well over the time that a restart takes."""
    stop_grace_seconds: float = 10.0
    """Between SIGTERM and SIGKILL for containers."""
    dequeuer: tuple[str, ...] = (sys.executable, "-P", "-m", "services.dequeuer")
    """The command. `-P`: the directory where a user starts this may hold a `services` of its own."""
