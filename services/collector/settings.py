"""What the collector is told by its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment


@dataclass(frozen=True)
class Settings:
    """The collector's settings; `CORTEX_...` names where each comes from."""

    data_dir: Path
    """CORTEX_DATA_DIR: `traces.db` stands here."""
    socket: Path
    """CORTEX_COLLECTOR_SOCKET: a unix socket for this machine's services."""
    port: int
    """CORTEX_COLLECTOR_PORT: a loopback port for containers; 0 for none."""
    log_level: str
    """CORTEX_LOG_LEVEL."""
    lifeline_fd: int | None
    """CORTEX_LIFELINE_FD: see `services.common.lifecycle`."""

    @classmethod
    def read(cls, environment: Environment) -> "Settings":
        """Settings from the environment. Raises `SettingsError`."""
        lifeline = environment.optional(LIFELINE_VARIABLE)
        return cls(
            data_dir=Path(environment.text("CORTEX_DATA_DIR")),
            socket=Path(environment.text("CORTEX_COLLECTOR_SOCKET")),
            port=environment.integer("CORTEX_COLLECTOR_PORT", 0),
            log_level=environment.text("CORTEX_LOG_LEVEL", "INFO"),
            lifeline_fd=environment.integer(LIFELINE_VARIABLE, 0) if lifeline else None,
        )
