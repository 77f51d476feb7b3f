"""How the kubelet behaves: like a real one, but for the times, which are made for tests."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.kubelet.images import Images
from tests.cluster.kubelet.network import Service


@dataclass(slots=True)
class Settings:
    """Of all nodes."""

    directory: Path
    """Pods' volumes and logs."""
    images: Images = field(default_factory=Images)
    services: list[Service] = field(default_factory=list)
    """What pods reach by name."""
    crash_backoff_seconds: float = 0.2
    """The first restart is at once, the second after this, then twice as long each time. Really: 10 s."""
    most_backoff_seconds: float = 5.0
    """Really: 5 minutes."""
    pull_backoff_seconds: float = 0.2
    refresh_seconds: float = 1.0
    """How often volumes are compared with what the API says. Really: about a minute."""
    heartbeat_seconds: float = 0.5
    """Really: 10 s."""
