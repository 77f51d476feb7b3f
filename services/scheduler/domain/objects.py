"""What is told about stored objects, whichever store they are in."""

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.item_stream import StoredObject


def changed(stored: StoredObject) -> CortexError:
    """It is not the object that was listed any more, or gone."""
    return CortexError(
        "objects.changed",
        f"{stored.uri} was changed or removed after it was listed; submit again what it holds now",
        Category.CONFLICT,
    )
