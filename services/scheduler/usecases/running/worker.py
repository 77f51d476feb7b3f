"""One worker, as the scheduler knows it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.scheduler.domain.model.worker import ContainerState, Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerLink


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process, from before its start until after its end."""

    record: WorkerRecord
    known: bool = False
    """It is on disk under its id, and may be let in."""
    starting: asyncio.Timeout | None = None
    """While the driver is at it."""
    link: WorkerLink | None = None
    health: Health = field(default_factory=Health)
    containers: Sequence[ContainerState] = ()
    """Where the driver tells of them; empty until it does."""
    vouched: bool = False
    """The driver says that its dequeuer has not run yet: a word from it is not missed."""
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
    """It is to end because the job has more workers than it is to have."""
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

    @property
    def phase(self) -> Phase:
        """Where it is, as it is counted."""
        return Phase.TERMINATING if self.leaving else self.health.phase

    def stop_starting(self) -> None:
        """It is not wanted any more."""
        if self.starting is not None:
            self.starting.reschedule(asyncio.get_running_loop().time())

    def stop_grace(self) -> None:
        """Nobody waits for it to come back."""
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None
