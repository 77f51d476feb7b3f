"""What all jobs at work share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.scheduler.domain.model.job import JobRecord, JobSpec
from services.scheduler.usecases.ports.clock import Clock
from services.scheduler.usecases.ports.dead_letters import DeadLetterQueues
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.ports.workers import WorkerDriver


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The same for every `JobRun`."""

    ledger: Ledger
    objects: ObjectStore
    driver: WorkerDriver
    queues: DeadLetterQueues
    clock: Clock
    trace: Callable[[JobRecord], JobTrace]
    token: Callable[[str, str], str]
    """Signs a token for (job id, worker id)."""
    job_document: Callable[[JobRecord], str]
    """The contents of /cortex/spec/job.json."""
    on_over: Callable[[], None]
    """A job is over, durably."""
    publish: Callable[[JobSpec], Awaitable[None]]
    """Writes a job's results to the store that it names."""
    reconnect_grace_seconds: float
    """How long a worker whose stream broke may stay away."""
    startup_deadline_seconds: float
    """How long a job may be without a worker that is ready."""
