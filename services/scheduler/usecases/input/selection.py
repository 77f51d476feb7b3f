"""Choosing files: the objects that a job's paths, includes and excludes name, in the order in which they are read.

The paths are taken one after the other, each as a prefix; what two of them cover is there twice, as it was with Cortex.
Under a path, objects come in the store's order.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from services.common.errors import CortexError
from services.scheduler.domain.globs import Files
from services.scheduler.domain.model.item_stream import Source, StoredObject
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.objects import ReadableObjects

SHOWN_PATHS = 5


@dataclass(frozen=True, slots=True)
class PatientObjects:
    """A store to read from; it waits while that is away."""

    objects: ReadableObjects
    patience: Patience

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """See `ObjectStore`."""
        pages = self.objects.list(prefix, after)

        async def next_page() -> Sequence[StoredObject] | None:
            nonlocal pages
            try:
                return await anext(pages, None)
            except CortexError:
                pages = self.objects.list(prefix, after)  # one that raised is over
                raise

        while (page := await self.patience(next_page)) is not None:
            yield page
            after = page[-1].uri if page else after

    async def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Goes on where it broke off. See `ObjectStore`."""
        chunks = self.objects.read(stored, start, end)

        async def next_chunk() -> bytes:
            nonlocal chunks
            try:
                return await anext(chunks, b"")
            except CortexError:
                chunks = self.objects.read(stored, start, end)  # one that raised is over
                raise

        try:
            while chunk := await self.patience(next_chunk):
                start += len(chunk)
                yield chunk
        finally:
            await chunks.aclose()


class Selection:
    """The files of one source."""

    def __init__(self, objects: ReadableObjects, source: Source) -> None:
        self._objects = objects
        self._paths = source.paths
        self._chosen = Files(source.includes, source.excludes, source.kind.value)

    async def files(self, path: int = 0, after: str = "") -> AsyncGenerator[tuple[int, list[StoredObject]], None]:
        """Pages of files, each with the number of their path: from that path on, and there behind the URI `after`."""
        async with aclosing(self._listed(path, after)) as pages:
            async for number, page in pages:
                yield number, [stored for stored in page if self._chosen.has(stored.uri)]

    async def check(self) -> None:
        """Raise `CortexError` when there is nothing: `batchapi.no_s3_files_found`, or what the store says."""
        left_out = 0
        async with aclosing(self._listed(0, "")) as pages:
            async for _, page in pages:
                if any(self._chosen.has(stored.uri) for stored in page):
                    return
                left_out += len(page)
        paths = ", ".join(self._paths[:SHOWN_PATHS]) + (", ..." if len(self._paths) > SHOWN_PATHS else "")
        why = f"there is nothing under {paths}"
        if left_out:
            files = "the one file" if left_out == 1 else f"all {left_out} files"
            why = (
                f"includes and excludes leave out {files} under {paths}; they describe whole paths, as "
                "s3://bucket/**.json does"
            )
        raise CortexError("batchapi.no_s3_files_found", f"no s3 files match search criteria: {why}")

    async def _listed(self, path: int, after: str) -> AsyncGenerator[tuple[int, Sequence[StoredObject]], None]:
        """As `files`, before any are left out."""
        for number in range(path, len(self._paths)):
            async for page in self._objects.list(self._paths[number], after):
                yield number, page
            after = ""
