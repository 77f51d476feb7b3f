"""Errors that are raised in several places, each worded once."""

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.item_stream import StoredObject

OBJECT_CHANGED = "objects.changed"
"""The kind of error for an object that is not what it was any more."""


def api_not_deployed(name: str) -> CortexError:
    """There is no such API in force."""
    return CortexError("resources.api_not_deployed", f"{name} is not deployed", Category.NOT_FOUND)


def idempotency_key_reused(job_id: str) -> CortexError:
    """A request's id stands for another request."""
    text = f"the idempotency key was used for another request, which became job {job_id}: use a new key"
    return CortexError("job.idempotency_key_reused", text, Category.CONFLICT)


def object_changed(stored: StoredObject) -> CortexError:
    """It is not the object that was listed any more, or gone."""
    text = f"{stored.uri} was changed or removed after it was listed; submit again what it holds now"
    return CortexError(OBJECT_CHANGED, text, Category.CONFLICT)
