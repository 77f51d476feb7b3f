"""One worker, as the scheduler knows it."""

import asyncio
from dataclasses import dataclass, field

from services.scheduler.domain.model.worker import Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerLink


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process, from before its start until after its end."""

    record: WorkerRecord
    link: WorkerLink | None = None
    health: Health = field(default_factory=Health)
    credit_batches: int = 0
    credit_bytes: int = 0
    held_bytes: int = 0
    excused: int = 0
    """Of `health.failed_starts`, those for which a batch is to blame."""
    delivered: bool = False
    """It has finished a batch since its start."""
    leaving: bool = False
    """It was told to end, or said that it will."""
    dismissed: bool = False
    """It was told to end because the job has more workers than it is to have."""
    revoked: set[int] = field(default_factory=set)
    """Epochs asked back and not answered yet."""
    grace: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        """The worker's id."""
        return self.record.worker_id

    @property
    def usable(self) -> bool:
        """Batches may be sent to it now."""
        return self.link is not None and not self.leaving and self.health.phase is Phase.READY
