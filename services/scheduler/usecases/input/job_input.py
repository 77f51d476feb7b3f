"""A running job's input on its way into batches.

What came with the submission is cut into batches; a retry's failed batches are copied; what files hold, or a client
sends, is taken in and cut. Each step is on disk, together with the cursor behind it, before its batches may be given
out, so that a restart goes on where this one stopped.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import msgspec

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece, Source, SourceKind
from services.scheduler.domain.model.job import JobRecord, JobSpec
from services.scheduler.domain.partition import Partitioner, UnderWay
from services.scheduler.usecases.input.appender import Appender, Growth
from services.scheduler.usecases.input.background import beside
from services.scheduler.usecases.input.file_source import file_source
from services.scheduler.usecases.input.retry_input import failed_batches
from services.scheduler.usecases.input.selection import PatientObjects
from services.scheduler.usecases.input.source import ItemSource
from services.scheduler.usecases.input.stream_source import StreamSource, broken_off, items_of
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore


class _Mark(msgspec.Struct, frozen=True):
    """Where a source is to go on: the cursor's position of a job that has one."""

    items: int
    """Of the batch that is not full yet."""
    size: int
    """Its bytes."""
    at: msgspec.Raw
    """What the source said."""


class JobInput:
    """The input of one job."""

    def __init__(
        self,
        ledger: Ledger,
        objects: ObjectStore,
        job: JobRecord,
        stream: StreamSource | None,
        on_extended: Callable[[int], None],
        on_trouble: Callable[[], None],
    ) -> None:
        """`stream` gives the items of a job whose source is one. After a restart there is none any more."""
        job_id, what = job.spec.job_id, "its input cannot be split"
        self._ledger = ledger
        self._objects = objects
        self._job = job
        self._stream = stream
        self._on_extended = on_extended
        self._patience = Patience(job_id, what, on_trouble)
        self._objects_patience = Patience(job_id, what, on_trouble, _will_not_pass)
        self.cursor = job.cursor
        """How far it is cut, as it is on disk."""

    @property
    def trouble(self) -> str:
        """Why it cannot be read or written just now, for people; empty when all is well."""
        return self._patience.trouble or self._objects_patience.trouble

    def grown(self, known: int) -> None:
        """There are so many batches on disk now, and they may be given out."""
        self.cursor = replace(self.cursor, next_index=max(known, self.cursor.next_index))
        self._on_extended(self.cursor.next_index)

    async def run(self) -> None:
        """Cut it to its end. Raises `CortexError` when something is wrong with it, so that the job cannot go on."""
        self.grown(self.cursor.next_index)
        if self.cursor.done:
            return
        if self._job.spec.retry_of:
            await self._copy()
        elif self._job.spec.source is not None:
            await self._take_in(self._source(self._job.spec.source))
        else:
            await self._cut()

    def close(self, why: str) -> None:
        """A client that still sends items is told that they are not taken any more."""
        if self._stream is not None:
            text = f"job {self._job.spec.job_id} takes no more items: {why}"
            self._stream.close(CortexError("job.job_is_not_in_progress", text, Category.CONFLICT))

    async def _cut(self) -> None:
        """Cut what came with the submission."""
        partitioner = Partitioner(self._job.spec.batch_size, self.cursor)
        offset = self.cursor.offset
        while not partitioner.cursor.done:
            piece = await self._patience(partial(self._ledger.next_piece, self._job.spec.job_id, offset))
            offset += len(piece)
            segments = partitioner.feed(piece) if piece else partitioner.finish()
            if segments or not piece:
                await self._add(segments, partitioner.cursor)

    async def _copy(self) -> None:
        """Copy the failed batches of another job."""
        old = await self._patience(self._retried)
        while not self.cursor.done:
            chunk = await self._patience(partial(failed_batches, self._ledger, self._objects, old, self.cursor))
            await self._add(chunk.segments, chunk.cursor, chunk.pieces)

    async def _retried(self) -> JobSpec:
        old = await self._ledger.job(self._job.spec.retry_of)
        if old is None:
            text = f"the ledger holds no job {self._job.spec.retry_of}"
            raise CortexError("ledger.failed", text, Category.INTERNAL)
        return old.spec

    def _source(self, source: Source) -> ItemSource:
        if source.kind is not SourceKind.STREAM:
            return file_source(PatientObjects(self._objects, self._objects_patience), source)
        if self._stream is None:
            mark = self._mark()
            raise broken_off(items_of(bytes(mark.at)) if mark is not None else 0, "the scheduler was restarted")
        return self._stream

    def _mark(self) -> _Mark | None:
        position = self.cursor.position
        return msgspec.json.decode(position, type=_Mark) if position else None

    async def _take_in(self, source: ItemSource) -> None:
        """Take in what a source gives, and cut it."""
        appender = Appender(self._write)
        async with beside(appender.run()):
            try:
                partitioner = await self._take_parts(source, appender)
            except CortexError:
                await appender.flush()  # what was good of it is known
                raise
            await appender.flush()
        segments = partitioner.finish()
        if partitioner.cursor.offset == 0:
            raise CortexError("job.no_data_found_in_job_submission", "there are no items: the input is empty")
        await self._add(segments, replace(partitioner.cursor, position=self.cursor.position))

    async def _take_parts(self, source: ItemSource, appender: Appender) -> Partitioner:
        mark = self._mark()
        under_way, at = (UnderWay(mark.items, mark.size), bytes(mark.at)) if mark is not None else (UnderWay(), b"")
        partitioner = Partitioner(self._job.spec.batch_size, self.cursor, under_way)
        async with aclosing(source.parts(at)) as parts:
            async for part in parts:
                segments = partitioner.feed_lengths(part.lengths)
                under_way, at = partitioner.under_way, part.position
                mark = _Mark(under_way.items, under_way.size, msgspec.Raw(at))
                position = msgspec.json.encode(mark).decode()
                await appender.add(part.pieces, segments, replace(partitioner.cursor, position=position))
        return partitioner

    async def _write(self, growth: Growth) -> None:
        await self._add(growth.segments, growth.cursor, growth.pieces)

    async def _add(self, segments: Sequence[Segment], cursor: Cursor, pieces: Sequence[Piece] = ()) -> None:
        job_id = self._job.spec.job_id
        digest = self._stream.digest if self._stream is not None and cursor.done else b""
        known = await self._patience(partial(self._ledger.add_segments, job_id, segments, cursor, pieces, digest))
        self.cursor = replace(cursor, next_index=self.cursor.next_index)  # batches may have been halved meanwhile
        self.grown(known)
        if self._stream is not None and (mark := self._mark()) is not None:
            self._stream.written(bytes(mark.at), complete=cursor.done)


def _will_not_pass(error: CortexError) -> bool:
    return error.category is not Category.UNAVAILABLE
