"""A worker: what is kept of it, how it is, and how it ended."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker process as a durable fact: written before it is started, removed after it ended."""

    worker_id: str
    job_id: str
    slot: int
    """The worker's number in its job, from 0. A replacement takes its predecessor's."""
    pid: int | None
    """None until it is known, and where a worker is no process of this machine."""
    started: float | None
    """The process's start time as the machine tells it, so that a reused pid is not mistaken for it."""
    detail: str = ""
    """What the driver needs to find the worker again; opaque to everyone else."""

    @property
    def found(self) -> bool:
        """The driver has said what it started. False: it may or may not have started something."""
        return self.pid is not None or self.detail != ""


class Phase(Enum):
    """Where a worker is; the values are the names in `worker_counts`."""

    PENDING = "pending"
    CREATING = "creating"
    ERR_IMAGE_PULL = "err_image_pull"
    STALLED = "stalled"
    """Pending for over ten minutes."""
    NOT_READY = "not_ready"
    READY = "ready"
    TERMINATING = "terminating"
    UNKNOWN = "unknown"
    """Its machine does not answer."""

    @property
    def before_dequeuer(self) -> bool:
        """Its dequeuer has not run yet: nobody can expect a word from it, and it holds nothing."""
        return self in _BEFORE_DEQUEUER


_BEFORE_DEQUEUER = frozenset({Phase.PENDING, Phase.CREATING, Phase.ERR_IMAGE_PULL, Phase.STALLED})


class End(Enum):
    """How a worker ended; the values are the names in `worker_counts`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    KILLED_OOM = "killed_oom"


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker's containers are."""

    phase: Phase = Phase.PENDING
    reason: str = ""
    """Why it is there, for people."""
    failed_starts: int = 0
    """Starts in a row that ended without a finished batch, the running one not counted."""
    out_of_memory: bool = False
    """There is evidence that the last of them ran out of memory."""
    cannot_start: bool = False
    """Something that it needs to start is not there, as `reason` says."""
    queued: bool = False
    """It waits for what other workers have now: however long that takes, nothing is wrong."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container of a worker whose containers something else than its dequeuer runs."""

    name: str
    running: bool
    ends: int
    """How often it has ended since the worker began: restarts, and one more while it is down after it ran."""
    exit_code: int | None = None
    """Of its last end; None when a signal ended it, or when it never ended."""
    signal: int | None = None
    """The number of the signal that caused its last end."""
    out_of_memory: bool = False
    """There is evidence that it last ended for lack of memory: never concluded from a bare SIGKILL."""
    backing_off: bool = False
    """It waits to be started again."""
    reason: str = ""
    """How it last ended, or why it does not run, as the rest of a sentence about it: `exited with code 3`."""
