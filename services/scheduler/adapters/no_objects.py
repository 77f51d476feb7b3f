"""The store of a deployment that has none."""

from collections.abc import AsyncIterator, Sequence

from services.common.errors import Category, CortexError
from services.scheduler.domain.model import StoredObject


class NoObjects:
    """Refuses everything."""

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """See the port."""
        raise _refusal()
        yield []  # type: ignore[unreachable]  # makes it a generator

    async def read(self, stored: StoredObject, start: int, end: int) -> bytes:
        """See the port."""
        raise _refusal()

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """See the port."""
        raise _refusal()

    async def check_writable(self, uri_prefix: str) -> None:
        """See the port."""
        raise _refusal()


def _refusal() -> CortexError:
    text = "object storage is not configured on this deployment: submit the items with item_list"
    return CortexError("job.object_storage_not_configured", text, Category.UNSUPPORTED)
