"""A store of objects in a directory, as simple as can be, that counts what is asked of it and can be away."""

import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.common.errors import Category, CortexError
from services.scheduler.domain.model import StoredObject

PAGE = 100


@dataclass
class DirectoryStore:
    """`file://` below one directory."""

    root: Path
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    away: bool = False

    @property
    def uri(self) -> str:
        return f"file://{self.root}/"

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        self._check()
        uris = sorted(f"file://{path}" for path in self.root.rglob("*") if path.is_file())
        chosen = [uri for uri in uris if uri.startswith(prefix) and uri > after]
        for first in range(0, len(chosen), PAGE):
            self._check()
            yield [self._stored(uri) for uri in chosen[first : first + PAGE]]

    def _stored(self, uri: str) -> StoredObject:
        data = Path(uri.removeprefix("file://")).read_bytes()
        return StoredObject(uri, len(data), f"{zlib.crc32(data)}")

    async def read(self, stored: StoredObject, start: int, end: int) -> bytes:
        self._check()
        self.reads.append((stored.uri, start, end))
        path = Path(stored.uri.removeprefix("file://"))
        if not path.exists() or self._stored(stored.uri) != stored:
            raise CortexError("objects.changed", f"{stored.uri} is gone or changed", Category.CONFLICT)
        return path.read_bytes()[start:end]

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        raise NotImplementedError

    async def check_writable(self, uri_prefix: str) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        if self.away:
            raise CortexError("files.away", "the store is away", Category.UNAVAILABLE)
