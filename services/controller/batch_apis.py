"""A BatchAPI's task: have it deployed as its spec says, and deleted when it goes.

Names of APIs are unique in the deployment, those of resources in their namespace: the one that has our finalizer has
the name, else the oldest. The others say so in their status, and wait.
"""

import logging

from services.common.errors import Category, CortexError
from services.common.kubernetes import Object
from services.controller.mirror import Live
from services.controller.resources import (
    Writer,
    condition,
    deleted,
    generation_of,
    has_finalizer,
    name_of,
    status_of,
    title_of,
    uid_of,
)
from services.controller.scheduler import LASTING, Scheduler
from services.controller.submission import api_file

log = logging.getLogger(__name__)

REPEAT_SECONDS = 300.0
"""An API that was changed or deleted by other means is as its resource says after this."""
NAME_SECONDS = 5.0
"""Between two looks whether a name is free."""


class BatchApis:
    """Keeps BatchAPIs."""

    def __init__(self, scheduler: Scheduler, writer: Writer) -> None:
        self._scheduler = scheduler
        self._writer = writer

    async def keep(self, live: Live) -> None:
        """Have it as its spec says, until that changes."""
        resource = await self._writer.fresh(live.resource)
        if deleted(resource):
            await self._delete(resource)
            return
        owner = min(live.namesakes(), key=_precedence)
        if uid_of(owner) == uid_of(resource):
            live.resource = await self._deploy(resource)
        else:
            told = _failed(resource, _name_taken(owner), lasting=True)
            live.resource = await self._writer.put_status(resource, told)
        seconds = REPEAT_SECONDS if uid_of(owner) == uid_of(resource) else NAME_SECONDS
        await live.changed(generation_of(resource), seconds)
        live.wake()

    async def _deploy(self, resource: Object) -> Object:
        resource = await self._writer.add_finalizer(resource)
        try:
            api = await self._scheduler.deploy(f"BatchAPI {title_of(resource)}", api_file(resource))
        except CortexError as error:
            lasting = error.category in LASTING
            if lasting or status_of(resource).get("observedGeneration") != generation_of(resource):
                resource = await self._writer.put_status(resource, _failed(resource, error, lasting=lasting))
            if lasting:
                return resource
            raise
        if status_of(resource).get("api_id") != api.api_id:
            log.info("%s is in force as %s", title_of(resource), api.api_id)
        status = {
            "observedGeneration": generation_of(resource),
            "api_id": api.api_id,
            "endpoint": api.endpoint,
            "conditions": [condition(resource, "Ready", True, "Deployed")],
        }
        return await self._writer.put_status(resource, status)

    async def _delete(self, resource: Object) -> None:
        if not has_finalizer(resource):
            return
        if not _never_deployed(resource):
            try:
                await self._scheduler.delete(name_of(resource))
            except CortexError as error:
                if error.category is not Category.NOT_FOUND:
                    raise
        await self._writer.drop_finalizer(resource)


def _precedence(resource: Object) -> tuple[bool, str, str]:
    return not has_finalizer(resource), resource["metadata"]["creationTimestamp"], uid_of(resource)


def _never_deployed(resource: Object) -> bool:
    """It was refused whenever it was tried: what has its name in the scheduler is somebody else's."""
    return "api_id" not in status_of(resource) and _is_ready(resource) == "False"


def _is_ready(resource: Object) -> str:
    return next((str(each["status"]) for each in status_of(resource).get("conditions", ())), "")


def _name_taken(owner: Object) -> CortexError:
    text = f"the API is that of BatchAPI {title_of(owner)}: names of APIs are unique in all namespaces; choose another"
    return CortexError("resources.name_taken", text, Category.CONFLICT)


def _failed(resource: Object, error: CortexError, *, lasting: bool) -> Object:
    """A version that is in force stays: its spec has a mistake, or its name is somebody else's.

    Where an answer was missing once nobody knows whether one is in force, until one is known to be.
    """
    kept = {name: value for name, value in status_of(resource).items() if name in ("api_id", "endpoint")}
    unknown = not kept and (not lasting or _is_ready(resource) == "Unknown")
    conditions = [condition(resource, "Ready", None if unknown else False, error.kind, error.message)]
    return kept | {"observedGeneration": generation_of(resource), "conditions": conditions}
