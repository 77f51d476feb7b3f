"""A BatchJob's task: submit it, follow it (`following`), stop it when it goes, delete it when its time is over.

Before a job is submitted, what may still change in its spec is noted in its status, so that a submission that is
repeated after a crash is the same to the letter: with the resource's uid as the request's id it is one job.
"""

import logging
import re
from datetime import UTC, datetime

from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import Category, CortexError
from services.common.kubernetes import Object
from services.controller.following import Following, pass_on
from services.controller.job_status import REFUSED, is_finished, job_status
from services.controller.mirror import Live
from services.controller.resources import (
    Writer,
    deleted,
    generation_of,
    has_finalizer,
    refusal,
    status_of,
    title_of,
)
from services.controller.scheduler import API_NOT_DEPLOYED, LASTING, REQUEST_REUSED, Scheduler
from services.controller.submission import job_request, noted
from services.controller.webhook_secrets import SECRET_NOT_FOUND, WebhookSecrets

log = logging.getLogger(__name__)

AWAITED_SECONDS = 3.0
"""Between two looks for what a job needs and may come after it."""
_JOB_ID = re.compile(r"\b[0-9a-f]{16}\b")
_AWAITED = (API_NOT_DEPLOYED, SECRET_NOT_FOUND)


class BatchJobs:
    """Keeps BatchJobs."""

    def __init__(self, scheduler: Scheduler, writer: Writer, secrets: WebhookSecrets) -> None:
        self._scheduler = scheduler
        self._writer = writer
        self._secrets = secrets

    async def keep(self, live: Live) -> None:
        """From its submission until it is gone."""
        resource = await self._writer.fresh(live.resource)  # what we have heard of may be older than what we wrote
        if deleted(resource):
            await self._stop(resource)
        elif is_finished(resource):
            await self._expire(live, await self._writer.drop_finalizer(resource))
        elif (submitted := await self._submitted(live, resource)) is not None:
            await Following(self._scheduler, self._writer, live, submitted).run()
            live.wake()  # for what comes next

    async def _submitted(self, live: Live, resource: Object) -> Object | None:
        """The resource of a job; None when it is refused, or has to wait."""
        if status_of(resource).get("job_id"):
            return resource
        resource = await self._writer.add_finalizer(resource)
        if status_of(resource).get("status") == REFUSED and _told_generation(resource) == generation_of(resource):
            return None
        try:
            resource = await self._note(resource)
            job = await self._submit(resource)
        except CortexError as error:
            if error.category not in LASTING:
                told = {"conditions": [refusal(resource, "Accepted", error)]}
                await self._writer.put_status(resource, {"status": "pending", **status_of(resource), **told})
                raise
            await self._refuse(live, resource, error)
            return None
        log.info("%s is job %s", title_of(resource), job.job_id)
        job, accepted = await pass_on(self._scheduler, resource, job)
        status = job_status(resource, job, accepted, status_of(resource)["submission"])
        return await self._writer.put_status(resource, status)

    async def _note(self, resource: Object) -> Object:
        """Note what is being submitted. Of what waits, only once it waits no more: nothing is written meanwhile."""
        if "submission" in status_of(resource):
            return resource
        if any(each["reason"] in _AWAITED for each in status_of(resource).get("conditions", ())):
            await self._secrets.of(resource)
            await self._scheduler.get_api(resource["spec"]["api_name"])
        status = {**status_of(resource), "submission": noted(resource), "status": "pending"}
        return await self._writer.put_status(resource, status)

    async def _submit(self, resource: Object) -> Job:
        secret = await self._secrets.of(resource)
        try:
            return await self._scheduler.submit(job_request(resource, status_of(resource)["submission"], secret))
        except CortexError as error:
            # The uid is this resource's alone: so is the job, from before its config or the webhook's secret changed.
            if error.kind != REQUEST_REUSED or (known := _JOB_ID.search(error.message)) is None:
                raise
            return await self._scheduler.job(resource["spec"]["api_name"], known[0])

    async def _refuse(self, live: Live, resource: Object, error: CortexError) -> None:
        waits = error.kind in _AWAITED
        status = {
            "observedGeneration": generation_of(resource),
            "status": "pending" if waits else REFUSED,
            "reason": error.message,
            "conditions": [refusal(resource, "Accepted", error)],
        }
        await self._writer.put_status(resource, status)
        if waits:
            await live.changed(generation_of(resource), AWAITED_SECONDS)
            live.wake()

    async def _stop(self, resource: Object) -> None:
        """The resource is to go, and its job with it."""
        if not has_finalizer(resource):
            return
        if job_id := await self._job_id(resource):
            try:
                await self._scheduler.stop(resource["spec"]["api_name"], job_id)
            except CortexError as error:
                if error.category not in (Category.CONFLICT, Category.NOT_FOUND):  # over, or unknown by now
                    raise
        await self._writer.drop_finalizer(resource)

    async def _job_id(self, resource: Object) -> str:
        status = status_of(resource)
        if "job_id" in status or "submission" not in status:
            return str(status.get("job_id", ""))
        try:  # we crashed when it was being submitted: the same request tells which job it is, or makes it one
            return (await self._submit(resource)).job_id
        except CortexError as error:
            if error.category not in LASTING:
                raise
            return ""

    async def _expire(self, live: Live, resource: Object) -> None:
        seconds = resource["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return
        ended = datetime.fromisoformat(status_of(resource)["end_time"])
        left = ended.timestamp() + seconds - datetime.now(UTC).timestamp()
        if left > 0:
            await live.news(left)
            live.wake()
        else:
            log.info("%s ended %d s ago and is deleted", title_of(resource), seconds - left)
            await self._writer.delete(resource)


def _told_generation(resource: Object) -> int:
    return int(status_of(resource).get("observedGeneration", 0))
