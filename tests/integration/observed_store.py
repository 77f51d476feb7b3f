"""A real store of objects that counts what is asked of it, and that can be away, or be in the test's way."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from services.common.errors import Category, CortexError
from services.scheduler.adapters.file_store import FileStore
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.ports.objects import ObjectStore


@dataclass
class ObservedStore:
    """See the module's text."""

    store: ObjectStore
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    away: bool = False
    before_chunk: Callable[[StoredObject, int], Awaitable[None]] | None = None

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        self._check()
        async for page in self.store.list(prefix, after):
            yield page
            self._check()

    async def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        self._check()
        self.reads.append((stored.uri, start, end))
        async with aclosing(self.store.read(stored, start, end)) as chunks:
            while True:
                if self.before_chunk is not None:
                    await self.before_chunk(stored, start)
                self._check()
                if not (chunk := await anext(chunks, b"")):
                    return
                yield chunk
                start += len(chunk)

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        await self.store.write(uri, chunks)

    async def check_writable(self, uri_prefix: str) -> None:
        await self.store.check_writable(uri_prefix)

    def _check(self) -> None:
        if self.away:
            raise CortexError("aws.unavailable", "the store does not answer", Category.UNAVAILABLE)


class Directory(ObservedStore):
    """Files below one directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(FileStore([root]))
        self.root = root

    @property
    def uri(self) -> str:
        return f"file://{self.root}/"

    def write_file(self, name: str, data: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path
