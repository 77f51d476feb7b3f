"""Following a job: its resource's status says how it goes, and what changes in the spec is passed on."""

import asyncio
import json
from contextlib import aclosing

from cortex.batch.v1.batch_service_pb2 import UpdateJobRequest
from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import Category, CortexError
from services.common.kubernetes import Object
from services.controller.job_status import is_final, job_status, lost_status
from services.controller.mirror import Live
from services.controller.resources import Writer, condition, deleted, generation_of, refusal, status_of, title_of
from services.controller.scheduler import LASTING, Scheduler


class Following:
    """One job, from its submission to its end."""

    def __init__(self, scheduler: Scheduler, writer: Writer, live: Live, resource: Object) -> None:
        """`resource` is what was last written of what `live` is."""
        self._scheduler = scheduler
        self._writer = writer
        self._live = live
        self._told = resource
        self._job: Job | None = None
        self._accepted = next(each for each in status_of(resource)["conditions"] if each["type"] == "Accepted")

    async def run(self) -> None:
        """Return when the job is over and its status says so, or its resource is to go."""
        hearing = asyncio.create_task(self._hear(), name=f"job of {title_of(self._told)}")
        hearing.add_done_callback(lambda _: self._live.wake())
        try:
            while not deleted(self._live.resource):
                if self._job is not None:
                    await self._tell(self._job)
                    if is_final(self._job):
                        return
                if hearing.done():
                    await self._lost(hearing)
                    return
                await self._live.news()
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})

    async def _hear(self) -> None:
        job_id = status_of(self._told)["job_id"]
        async with aclosing(self._scheduler.watch(self._told["spec"]["api_name"], job_id)) as jobs:
            async for job in jobs:
                self._job = job
                self._live.wake()

    async def _tell(self, job: Job) -> None:
        newest = self._live.resource
        if generation_of(newest) > self._accepted["observedGeneration"] and not is_final(job):
            job, self._accepted = await pass_on(self._scheduler, newest | {"status": status_of(self._told)}, job)
        told = status_of(self._told)
        status = job_status(self._told, job, self._accepted, told["submission"])
        self._told = await self._writer.put_status(self._told, status)

    async def _lost(self, hearing: "asyncio.Task[None]") -> None:
        """The scheduler says no more about the job: it cannot, or does not know it."""
        error = hearing.exception()
        if isinstance(error, CortexError) and error.category is Category.NOT_FOUND:
            await self._writer.put_status(self._told, lost_status(self._told, error))
        elif error is not None:
            raise error


async def pass_on(scheduler: Scheduler, resource: Object, job: Job) -> tuple[Job, Object]:
    """Have a job be what its spec says now: the job as it is then, and the condition that tells what came of it."""
    try:
        if (request := changes(resource["spec"], job)) is not None:
            job = await scheduler.update(request)
        check_config(resource["spec"], job)
    except CortexError as error:
        if error.category not in LASTING:
            raise
        return job, refusal(resource, "Accepted", error)
    return job, condition(resource, "Accepted", True, "Submitted")


def changes(spec: Object, job: Job) -> UpdateJobRequest | None:
    """What makes a job what a spec says now; None for nothing."""
    request = UpdateJobRequest(api_name=job.api_name, job_id=job.job_id)
    if (workers := spec.get("workers")) is not None and workers != job.workers:
        request.workers = workers
    if (paused := bool(spec.get("paused"))) != job.paused:
        request.paused = paused
    return request if request.HasField("workers") or request.HasField("paused") else None


def check_config(spec: Object, job: Job) -> None:
    """Raise `CortexError` for a config that is not the job's: the one field that the CRD cannot keep from changing."""
    if spec.get("config_json") is None and spec.get("config") != json.loads(job.config_json or "null"):
        text = "config: the job is submitted, and goes on with the config that it had; make a new BatchJob"
        raise CortexError("job.spec_is_immutable", text, Category.CONFLICT)
