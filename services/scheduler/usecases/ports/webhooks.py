"""Telling receivers of a job's end."""

from collections.abc import Mapping
from typing import Protocol


class WebhookSender(Protocol):
    """Tells receivers of a job's end."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """POST once. The status (0: no answer), and what went wrong, for people; `""` when it was taken."""
