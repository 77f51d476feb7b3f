"""What the controller is told by its environment."""

import socket
from dataclasses import dataclass

from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment


@dataclass(frozen=True)
class Settings:
    """The controller's settings; `CORTEX_...` names where each comes from."""

    scheduler: str
    """CORTEX_SCHEDULER_ADDRESS: gRPC target of the scheduler."""
    all_namespaces: bool
    """CORTEX_ALL_NAMESPACES: follow the resources of all namespaces, not only of CORTEX_NAMESPACE (or the pod's)."""
    health_address: str
    """CORTEX_HEALTH_ADDRESS: HOST:PORT of the gRPC health service; port 0 picks one."""
    lease: str | None
    """CORTEX_LEASE: the Lease by which one of several replicas is elected; None: there is one alone."""
    lease_seconds: int
    """CORTEX_LEASE_SECONDS: a leader that says nothing leads for so long; then another one may."""
    identity: str
    """CORTEX_POD_NAME: who we are among them; the host's name when not given."""
    log_level: str
    """CORTEX_LOG_LEVEL."""
    lifeline_fd: int | None
    """CORTEX_LIFELINE_FD: see `services.common.lifecycle`."""

    @classmethod
    def read(cls, environment: Environment) -> "Settings":
        """Settings from the environment. Raises `SettingsError`."""
        lifeline = environment.optional(LIFELINE_VARIABLE)
        return cls(
            scheduler=environment.text("CORTEX_SCHEDULER_ADDRESS"),
            all_namespaces=environment.flag("CORTEX_ALL_NAMESPACES"),
            health_address=environment.text("CORTEX_HEALTH_ADDRESS", "127.0.0.1:8890"),
            lease=environment.optional("CORTEX_LEASE"),
            lease_seconds=max(1, environment.integer("CORTEX_LEASE_SECONDS", 10)),
            identity=environment.text("CORTEX_POD_NAME", socket.gethostname()),
            log_level=environment.text("CORTEX_LOG_LEVEL", "INFO"),
            lifeline_fd=environment.integer(LIFELINE_VARIABLE, 0) if lifeline else None,
        )
