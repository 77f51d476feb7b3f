"""Letting workers in: a token is checked, and leads to one worker of one running job.

A token for a whole job speaks for any of its workers, and for nothing else. A worker that calls with one before it is
known, because it is just being started or took a lost one's place by itself, is told to try again.
"""

from services.common.errors import Category, CortexError
from services.scheduler.usecases.ports.tokens import Identity, Tokens
from services.scheduler.usecases.running.job_run import JobRun
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.running.worker import Worker


def admit(jobs: Jobs, tokens: Tokens, token: str, worker_id: str) -> tuple[JobRun, Worker, Identity]:
    """The run and the worker that a caller may speak for. Raises `CortexError`:

    UNAUTHENTICATED for a wrong token, NOT_FOUND when the job is over, CONFLICT when it goes on without this worker,
    UNAVAILABLE when the worker is not known yet.
    """
    identity = tokens.verify(token)
    run = jobs.run(identity.job_id)
    if identity.worker_id not in ("", worker_id) or jobs.run_of(worker_id) not in (None, run):
        raise CortexError(
            "worker.wrong_token", f"this token is not for the worker {worker_id}", Category.UNAUTHENTICATED
        )
    if run is None or run.over.is_set():
        raise CortexError("worker.not_wanted", f"job {identity.job_id} is over", Category.NOT_FOUND)
    worker = run.workers.find(worker_id)
    if worker is not None and worker.known:
        return run, worker, identity
    if identity.worker_id or run.workers.was_here(worker_id):
        text = f"job {identity.job_id} has another worker in this one's place"
        raise CortexError("worker.replaced", text, Category.CONFLICT)
    raise CortexError("worker.not_known_yet", f"worker {worker_id} is not known yet; try again", Category.UNAVAILABLE)
