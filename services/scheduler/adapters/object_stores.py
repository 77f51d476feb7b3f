"""All stores as one: a URI's scheme says which is meant."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from services.common.errors import CortexError
from services.scheduler.adapters.aws import s3
from services.scheduler.adapters.aws.s3 import S3Store
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.file_store import SCHEME as FILE_SCHEME
from services.scheduler.adapters.file_store import FileStore
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.ports.objects import ObjectStore


class ObjectStores:
    """The port `ObjectStore` for every scheme that is accepted."""

    def __init__(self, session: AwsSession, input_roots: Iterable[Path]) -> None:
        self._stores: Mapping[str, ObjectStore] = {s3.SCHEME: S3Store(session), FILE_SCHEME: FileStore(input_roots)}

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """See the port."""
        return self._store(prefix).list(prefix, after)

    def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """See the port."""
        return self._store(stored.uri).read(stored, start, end)

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """See the port."""
        await self._store(uri).write(uri, chunks)

    async def check_writable(self, uri_prefix: str) -> None:
        """See the port."""
        await self._store(uri_prefix).check_writable(uri_prefix)

    def _store(self, uri: str) -> ObjectStore:
        for scheme, store in self._stores.items():
            if uri.startswith(scheme):
                return store
        what = f"{uri!r} is not a path that can be used: s3://BUCKET/KEY and file:///PATH are accepted"
        raise CortexError("aws.invalid_s3_path", what)
