"""What workers wrote."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a worker's container, or its dequeuer, wrote."""

    time_ns: int
    worker: int
    """The worker's number in its job, from 0."""
    container: str
    message: str


class LogReader(Protocol):
    """The kept output of jobs' workers."""

    def tail(
        self, api_name: str, job_id: str, follow: bool, finished: asyncio.Event
    ) -> AsyncIterator[Sequence[LogEntry]]:
        """What is there, oldest first; with `follow` also what comes, until `finished` is set."""
