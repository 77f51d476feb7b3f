"""The tokens that workers show."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token was made for."""

    job_id: str
    worker_id: str
    """Empty: any worker of the job."""
    renew_seconds: float
    """When a new one is due."""


class Tokens(Protocol):
    """Signs and checks worker tokens."""

    def sign(self, job_id: str, worker_id: str) -> str:
        """A token for one worker of one job; for any worker of it when `worker_id` is empty."""

    def verify(self, token: str) -> Identity:
        """Whom the token was made for. Raises `CortexError` (UNAUTHENTICATED) when it is not ours or too old."""
