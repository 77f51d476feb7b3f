"""Files and objects."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from services.scheduler.domain.model.item_stream import StoredObject


class ReadableObjects(Protocol):
    """Files and objects by URI, to read. A URI is plain text: `s3://bucket/` and the key, `file://` and the path.

    Raises `CortexError` everywhere: kinds `aws.*` and `files.*` say what is wrong with which bucket, key or path and
    what to do; category UNAVAILABLE is for what may pass (network, 5xx, throttling), after the client's own retries.
    """

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """The objects whose URI starts with `prefix`, recursively, in pages, ascending by the UTF-8 of their keys.

        Only those behind the URI `after`. A few stores that are compatible with S3 keep another order; behind an
        object is there what they list later. Directories, and the objects that stand for them (a key that ends with
        `/`), are not listed.
        """

    def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a range, as they come: what nobody asks for yet is not taken from the store. To be closed.

        Raises `CortexError` (`objects.changed`, category CONFLICT) when it is gone or not what was listed any more.
        """


class ObjectStore(ReadableObjects, Protocol):
    """The same, and to write."""

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """Make this the object's content: the whole or nothing. In constant memory."""

    async def check_writable(self, uri_prefix: str) -> None:
        """Raise `CortexError` when nothing can be written there."""


async def whole(chunks: AsyncGenerator[bytes, None]) -> bytes:
    """What a read gives, at once."""
    async with aclosing(chunks):
        return b"".join([chunk async for chunk in chunks])
