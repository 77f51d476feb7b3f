"""Letting workers in: a token is checked, and leads to one worker of one running job."""

from services.common.errors import Category, CortexError
from services.scheduler.usecases.ports.tokens import Identity, Tokens
from services.scheduler.usecases.running.job_run import JobRun
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.running.worker import Worker


def admit(jobs: Jobs, tokens: Tokens, token: str, worker_id: str) -> tuple[JobRun, Worker, Identity]:
    """The run and the worker that a caller may speak for."""
    identity = tokens.verify(token)
    if identity.worker_id != worker_id:
        raise CortexError(
            "worker.wrong_token", f"this token is not for the worker {worker_id}", Category.UNAUTHENTICATED
        )
    run = jobs.run(identity.job_id)
    worker = run.worker(worker_id) if run is not None else None
    if run is None or worker is None or run.over.is_set():
        raise CortexError(
            "worker.not_wanted",
            f"job {identity.job_id} is over, or has another worker in this one's place",
            Category.NOT_FOUND,
        )
    return run, worker, identity
