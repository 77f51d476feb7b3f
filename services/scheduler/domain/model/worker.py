"""A worker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker process as a durable fact: written before it is started, removed after it ended."""

    worker_id: str
    job_id: str
    slot: int
    """The worker's number in its job, from 0. A replacement takes its predecessor's."""
    pid: int | None
    """None until it is known."""
    started: float | None
    """The process's start time as the machine tells it, so that a reused pid is not mistaken for it."""
    detail: str = ""
    """What the driver needs to find the worker again; opaque to everyone else."""
