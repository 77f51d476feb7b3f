"""All jobs: which run, which are only remembered, and how each begins and ends its run."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from services.common.errors import Category, CortexError
from services.scheduler.domain.api_config import load_api
from services.scheduler.domain.errors import api_not_deployed
from services.scheduler.domain.model.job import JobRecord, JobStatus
from services.scheduler.domain.model.worker import ContainerState, Health
from services.scheduler.usecases.input.stream_source import StreamSource
from services.scheduler.usecases.ports.workers import WorkerExit
from services.scheduler.usecases.running.job_run import JobRun
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")


class Jobs:
    """The registry of jobs."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._promises: set[asyncio.Task[Any]] = set()
        around.driver.on_exit(self._worker_exited)
        around.driver.on_health(self._driver_says)
        around.driver.on_containers(self._containers_changed)

    # Beginning and ending

    async def resume(self) -> None:
        """After a start: go on with every job that is not over. When this returns, their workers may come back."""
        # First what workers have of their machine (ports, devices): before one is started that would take it too.
        for worker in await self._around.ledger.workers():
            if worker.found:
                await self._around.driver.adopt(worker)
        for job in await self._unfinished():
            log.info("going on with job %s of %s", job.spec.job_id, job.spec.api_name)
            await self.start(job, resumed=True)
        for run in list(self._runs.values()):
            await run.at_work.wait()
        # Workers of jobs that are over have nothing to come back to.
        for worker in await self._around.ledger.workers():
            if worker.job_id not in self._runs:
                if worker.found and await self._around.driver.adopt(worker):
                    await self._around.driver.kill(worker)
                await self._around.ledger.remove_worker(worker.worker_id)
                await self._around.driver.clean_up(worker.job_id)

    async def _unfinished(self) -> list[JobRecord]:
        found: list[JobRecord] = []
        while page := await self._around.ledger.jobs(
            running_only=True, limit=1000, after=found[-1].spec.job_id if found else ""
        ):
            found += page
        return found

    async def start(self, job: JobRecord, *, resumed: bool, stream: StreamSource | None = None) -> None:
        """Run an accepted job in the background. `stream` brings the items of a new job whose source is one."""
        api = await self._around.ledger.api(job.spec.api_name, job.spec.api_id)
        if api is None:
            reason = f"version {job.spec.api_id} of {job.spec.api_name} is not known"
            await self._fail(job, reason)
            return
        try:
            max_concurrency = load_api(api).pod.max_concurrency
        except Exception as error:  # the border of a job: one that cannot be run must not take others along
            log.exception("job %s: version %s of %s cannot be read", job.spec.job_id, api.api_id, api.name)
            await self._fail(job, f"version {api.api_id} of {api.name} cannot be read: {error}")
            return
        run = JobRun(self._around, api, job, max_concurrency, stream)
        self._runs[run.id] = run
        self._tasks[run.id] = asyncio.create_task(self._live(run, resumed), name=f"job {run.id}")

    async def _live(self, run: JobRun, resumed: bool) -> None:
        try:
            await run.run(resumed)
        except Exception as error:  # the border of a job's task: one broken job must not take others along
            log.exception("job %s failed unexpectedly", run.id)
            await run.abandon(error)
        finally:
            if not self._closing:
                self._runs.pop(run.id, None)
                self._tasks.pop(run.id, None)

    async def _fail(self, job: JobRecord, reason: str) -> None:
        now_ns = self._around.clock.now_ns()
        state = replace(job.state, status=JobStatus.UNEXPECTED_ERROR, reason=reason, ended_ns=now_ns)
        try:
            await self._around.ledger.set_state(job.spec.job_id, state)
        except CortexError as error:
            log.error("job %s: its failure cannot be written: %s", job.spec.job_id, error.message)
        self._around.on_over()

    async def close(self, grace_seconds: float | None) -> None:
        """Leave the jobs to the next start. With a grace, workers finish or hand back what they hold and end; without
        one, or where they outlive a scheduler, they go on by themselves.
        """
        self._closing = True
        if grace_seconds is not None and not self._around.driver.outlives_scheduler:
            await asyncio.gather(*(run.hand_back(grace_seconds) for run in self._runs.values()))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # What the driver tells

    def _worker_exited(self, exit_: WorkerExit) -> None:
        if (run := self.run_of(exit_.worker_id)) is not None:
            run.workers.exited(exit_)

    def _driver_says(self, worker_id: str, health: Health) -> None:
        if (found := self._find(worker_id)) is not None:
            found[0].workers.driver_says(found[1], health)

    def _containers_changed(self, worker_id: str, containers: Sequence[ContainerState]) -> None:
        if (found := self._find(worker_id)) is not None:
            found[0].workers.containers(found[1], containers)

    def _find(self, worker_id: str) -> tuple[JobRun, Worker] | None:
        for run in self._runs.values():
            if (worker := run.workers.find(worker_id)) is not None:
                return run, worker
        return None

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what must not stop halfway, also when the client that asked for it goes away."""
        task = asyncio.create_task(work)
        self._promises.add(task)
        task.add_done_callback(self._promises.discard)
        return await asyncio.shield(task)

    # Looking

    def run(self, job_id: str) -> JobRun | None:
        """The job's run, when it is not over."""
        return self._runs.get(job_id)

    def run_of(self, worker_id: str) -> JobRun | None:
        """The run that has this worker."""
        found = self._find(worker_id)
        return None if found is None else found[0]

    def _at_work(self, job_id: str) -> JobRun | None:
        """The job's run, while it can tell more than the ledger."""
        run = self._runs.get(job_id)
        return None if run is None or run.over.is_set() else run

    def at_work(self) -> list[JobView]:
        """The jobs that are not over."""
        return [run.view() for run in self._runs.values() if not run.over.is_set()]

    async def view(self, api_name: str, job_id: str) -> JobView:
        """A job as it is. Raises `CortexError`: `job.not_found`, or `resources.api_not_deployed` where that is why.

        The jobs of a deleted API stay known.
        """
        run = self._at_work(job_id)
        if run is not None and run.record.spec.api_name == api_name:
            return run.view()
        job = await self._around.ledger.job(job_id)
        if job is None or job.spec.api_name != api_name:
            if await self._around.ledger.api(api_name) is None:
                raise api_not_deployed(api_name)
            raise CortexError(
                "job.not_found", f"there is no job {job_id!r} of the API {api_name!r}", Category.NOT_FOUND
            )
        return JobView(job)

    async def views(self, api_name: str | None, *, running_only: bool, limit: int, after: str) -> list[JobView]:
        """Jobs, newest first."""
        page = await self._around.ledger.jobs(api_name, running_only=running_only, limit=limit, after=after)
        runs = [self._at_work(job.spec.job_id) for job in page]
        return [run.view() if run is not None else JobView(job) for run, job in zip(runs, page, strict=True)]

    # Changing

    async def update(self, api_name: str, job_id: str, workers: int | None, paused: bool | None) -> JobView:
        """Change a running job; None: leave it as it is. Returns when that is durable.

        Raises `CortexError` like `view`, and `job.job_is_not_in_progress`.
        """
        await self.view(api_name, job_id)
        run = self._runs.get(job_id)
        if run is None or not await self.to_the_end(run.update(workers, paused)):
            raise _over_already(api_name, job_id)
        return await self.view(api_name, job_id)

    # Stopping

    async def stop(self, api_name: str, job_id: str) -> None:
        """Stop a running job. Returns when that is durable."""
        await self.view(api_name, job_id)
        run = self._runs.get(job_id)
        if run is None or run.over.is_set():
            raise _over_already(api_name, job_id)
        run.end(JobStatus.STOPPED, "a user stopped it")
        await run.over.wait()
        if run.record.state.status is not JobStatus.STOPPED:
            raise _over_already(api_name, job_id)  # it ended by itself while this was on its way

    async def stop_all(self, api_name: str) -> None:
        """Stop the running jobs of an API."""
        runs = [run for run in self._runs.values() if run.record.spec.api_name == api_name]
        for run in runs:
            run.end(JobStatus.STOPPED, "its API was deleted")
        for run in runs:
            await run.over.wait()


def _over_already(api_name: str, job_id: str) -> CortexError:
    return CortexError("job.job_is_not_in_progress", f"job {job_id} of {api_name} is over already", Category.CONFLICT)
