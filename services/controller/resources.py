"""Reading custom resources, and writing what is ours in them: the status and the finalizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.common.errors import CortexError
from services.common.kubernetes import Cluster, Object, Resource
from services.common.kubernetes.errors import INVALID, NOT_FOUND

FINALIZER = "batch.cortex.dev/mirrored"
"""While a resource has it, the scheduler may know something that must go when the resource goes."""


class Gone(Exception):  # noqa: N818  # a finding, not an error
    """The resource is not there any more."""


def name_of(resource: Object) -> str:
    """Its name."""
    return str(resource["metadata"]["name"])


def uid_of(resource: Object) -> str:
    """What tells it from others that had its name."""
    return str(resource["metadata"]["uid"])


def title_of(resource: Object) -> str:
    """For people: `NAMESPACE/NAME`."""
    return f"{resource['metadata']['namespace']}/{name_of(resource)}"


def generation_of(resource: Object) -> int:
    """Counts the changes of its spec."""
    return int(resource["metadata"].get("generation", 0))


def deleted(resource: Object) -> bool:
    """Whether somebody wants it gone."""
    return "deletionTimestamp" in resource["metadata"]


def has_finalizer(resource: Object) -> bool:
    """Whether it is ours to clean up."""
    return FINALIZER in resource["metadata"].get("finalizers", ())


def status_of(resource: Object) -> Object:
    """What was last told."""
    found: Object = resource.get("status") or {}
    return found


def condition(
    resource: Object, kind: str, status: bool | None, reason: str, message: str = "", *, now: datetime | None = None
) -> Object:
    """A condition about the present spec; it keeps its time as long as its status stays. None: nobody knows."""
    value = "Unknown" if status is None else str(status)
    since = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for old in status_of(resource).get("conditions", ()):
        if old["type"] == kind and old["status"] == value:
            since = old["lastTransitionTime"]
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "observedGeneration": generation_of(resource),
        "lastTransitionTime": since,
    }


def refusal(resource: Object, kind: str, error: CortexError) -> Object:
    """The condition that an error is told by: its kind and its message."""
    return condition(resource, kind, False, error.kind, error.message)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes to resources of one kind. Raises `CortexError`, and `Gone`."""

    cluster: Cluster
    resource: Resource

    async def put_status(self, subject: Object, status: Mapping[str, Any]) -> Object:
        """Have this as the whole status; the resource as it is then."""
        if status_of(subject) == status:
            return subject
        change: list[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": uid_of(subject)},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        return await self._patch(subject, change, "status")

    async def add_finalizer(self, subject: Object) -> Object:
        """Have it keep until we let it go."""
        if has_finalizer(subject):
            return subject
        return await self._set_finalizers(subject, [*subject["metadata"].get("finalizers", ()), FINALIZER])

    async def drop_finalizer(self, subject: Object) -> Object:
        """Let it go."""
        if not has_finalizer(subject):
            return subject
        left = [name for name in subject["metadata"]["finalizers"] if name != FINALIZER]
        return await self._set_finalizers(subject, left)

    async def delete(self, subject: Object) -> None:
        """Have it deleted."""
        await self.cluster.delete(self.resource, _namespace(subject), name_of(subject), uid=uid_of(subject))

    async def fresh(self, subject: Object) -> Object:
        """The resource as it is now."""
        found = await self.cluster.get(self.resource, _namespace(subject), name_of(subject))
        if found is None or uid_of(found) != uid_of(subject):
            raise Gone
        return found

    async def _set_finalizers(self, subject: Object, names: list[str]) -> Object:
        # With the version: others have finalizers too, and a list is replaced as a whole.
        metadata = {"resourceVersion": subject["metadata"]["resourceVersion"], "finalizers": names}
        return await self._patch(subject, {"metadata": metadata}, "")

    async def _patch(self, subject: Object, change: Object | list[Object], subresource: str) -> Object:
        try:
            return await self.cluster.patch(
                self.resource, _namespace(subject), name_of(subject), change, subresource=subresource
            )
        except CortexError as error:
            if error.kind == NOT_FOUND:
                raise Gone from error
            if error.kind == INVALID:
                await self.fresh(subject)  # another one of the same name does not pass the test
            raise


def _namespace(subject: Object) -> str:
    return str(subject["metadata"]["namespace"])
