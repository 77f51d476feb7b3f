"""What the collector is told by its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment, SettingsError


@dataclass(frozen=True)
class Settings:
    """The collector's settings; `CORTEX_...` names where each comes from."""

    data_dir: Path
    """CORTEX_DATA_DIR: `traces.db` stands here."""
    socket: Path | None
    """CORTEX_COLLECTOR_SOCKET: a unix socket for this machine's services."""
    address: str | None
    """CORTEX_OTLP_ADDRESS: HOST:PORT for services of other machines. This or `socket` must be given."""
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
        socket, address = environment.optional("CORTEX_COLLECTOR_SOCKET"), environment.optional("CORTEX_OTLP_ADDRESS")
        if socket is None and address is None:
            raise SettingsError("say where to listen: CORTEX_COLLECTOR_SOCKET, CORTEX_OTLP_ADDRESS, or both")
        return cls(
            data_dir=Path(environment.text("CORTEX_DATA_DIR")),
            socket=Path(socket) if socket is not None else None,
            address=address,
            port=environment.integer("CORTEX_COLLECTOR_PORT", 0),
            log_level=environment.text("CORTEX_LOG_LEVEL", "INFO"),
            lifeline_fd=environment.integer(LIFELINE_VARIABLE, 0) if lifeline else None,
        )
