"""The scheduler's settings, read from the environment once."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.common.engine import ENGINES
from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment, SettingsError

LEDGER_VARIABLE = "CORTEX_LEDGER"


@dataclass(frozen=True)
class Settings:
    """What the scheduler can be told."""

    data_dir: Path
    """The ledger (unless it is elsewhere), the workers' directories and their kept output."""
    grpc_address: str
    """HOST:PORT of the public gRPC services; port 0 picks one."""
    scheduler_socket: str | None
    """A unix socket with the same services, for the gateway and for dequeuers."""
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
    input_roots: tuple[Path, ...]
    """Directories whose files jobs may read, and write results to, as `file://` paths."""
    lifeline_fd: int | None
    """See `services.common.lifecycle`."""
    log_level: str
    startup_deadline_seconds: float
    """A job fails when none of its workers becomes ready within this."""
    reconnect_grace_seconds: float
    """A worker whose stream stays away longer is replaced."""
    drain_seconds: float
    """At the end, batches in containers may go on for so long."""
    ledger: str | None = field(repr=False)  # it may hold a password
    """The URL of a PostgreSQL database that holds the ledger; None: a file in the data directory."""
    lease: str | None
    """The Lease by which one of several replicas is elected; None: there is one alone, and it leads."""
    lease_seconds: int
    """A leader that says nothing leads for so long; then another one may."""
    identity: str
    """Who we are among them: the pod's name."""
    metrics_address: str | None
    """HOST:PORT at which Prometheus finds the scheduler's series; None: nowhere."""
    workers: str
    """What workers run as: `local`, processes of this machine; an engine, its containers; `kubernetes`, pods."""
    kubernetes_settings: Path | None
    """The file that says how they run as pods: see `adapters/kubernetes_workers/settings.py`."""
    node_groups: frozenset[str] | None
    """The names that `node_groups` of an API may hold, separated by commas; None: they are not checked."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Settings":
        """Read the settings. Raises `SettingsError`."""
        env = Environment(variables)
        lifeline = env.optional(LIFELINE_VARIABLE)
        return cls(
            data_dir=Path(env.text("CORTEX_DATA_DIR")).resolve(),
            grpc_address=env.text("CORTEX_GRPC_ADDRESS", "127.0.0.1:8889"),
            scheduler_socket=env.optional("CORTEX_SCHEDULER_SOCKET"),
            public_url=env.text("CORTEX_PUBLIC_URL", "http://127.0.0.1:8888"),
            http_socket=env.optional("CORTEX_HTTP_SOCKET"),
            collector_socket=env.optional("CORTEX_COLLECTOR_SOCKET"),
            collector_port=env.integer("CORTEX_COLLECTOR_PORT", 0),
            working_dir=Path(env.text("CORTEX_WORKING_DIR", ".")).resolve(),
            input_roots=_directories(env.text("CORTEX_INPUT_ROOTS", "")),
            lifeline_fd=int(lifeline) if lifeline is not None else None,
            log_level=env.text("CORTEX_LOG_LEVEL", "INFO"),
            startup_deadline_seconds=env.seconds("CORTEX_STARTUP_DEADLINE", 600.0),
            reconnect_grace_seconds=env.seconds("CORTEX_RECONNECT_GRACE", 30.0),
            drain_seconds=env.seconds("CORTEX_DRAIN", 7.0),
            lease=env.optional("CORTEX_LEASE"),
            ledger=_database(env.optional(LEDGER_VARIABLE)),
            lease_seconds=max(1, env.integer("CORTEX_LEASE_SECONDS", 10)),
            identity=env.text("CORTEX_POD_NAME", socket.gethostname()),
            metrics_address=env.optional("CORTEX_METRICS_ADDRESS"),
            workers=env.choice("CORTEX_WORKERS", ("local", *ENGINES, "kubernetes")),
            kubernetes_settings=_path(env.optional("CORTEX_KUBERNETES_SETTINGS")),
            node_groups=_names(env.optional("CORTEX_NODE_GROUPS")),
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def _database(url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError(f"{LEDGER_VARIABLE} must be like postgresql://USER@HOST:5432/DATABASE")
    return url


def _names(text: str | None) -> frozenset[str] | None:
    names = frozenset(part.strip() for part in (text or "").split(",") if part.strip())
    return names or None


def _directories(paths: str) -> tuple[Path, ...]:
    # Not `resolve`: jobs name a directory as the operator did, through links or not.
    return tuple(Path(os.path.abspath(path)) for path in paths.split(os.pathsep) if path)  # noqa: PTH100
