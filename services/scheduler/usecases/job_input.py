"""A running job's input on its way into batches.

What came with the submission is cut into batches; a retry's failed batches are copied. Each step is on disk, together
with the cursor behind it, before its batches may be given out, so that a restart goes on where this one stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from services.scheduler.domain.model import Cursor, JobRecord, Segment
from services.scheduler.domain.partition import Partitioner
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports import Ledger
from services.scheduler.usecases.reread import failed_batches


class JobInput:
    """The input of one job."""

    def __init__(
        self,
        ledger: Ledger,
        job: JobRecord,
        on_extended: Callable[[int], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._job = job
        self._on_extended = on_extended
        self._patience = Patience(job.spec.job_id, "its input cannot be split", on_trouble)
        self.cursor = job.cursor
        """How far it is cut, as it is on disk."""

    @property
    def trouble(self) -> str:
        """Why it cannot be read or written just now, for people; empty when all is well."""
        return self._patience.trouble

    def grown(self, known: int) -> None:
        """There are so many batches on disk now, and they may be given out."""
        self.cursor = replace(self.cursor, next_index=max(known, self.cursor.next_index))
        self._on_extended(self.cursor.next_index)

    async def run(self) -> None:
        """Cut it to its end."""
        self.grown(self.cursor.next_index)
        if self.cursor.done:
            return
        if self._job.spec.retry_of:
            await self._copy()
        else:
            await self._cut()

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
        while not self.cursor.done:
            chunk = await self._patience(partial(failed_batches, self._ledger, self._job.spec.retry_of, self.cursor))
            await self._add(chunk.segments, chunk.cursor, chunk.pieces)

    async def _add(self, segments: Sequence[Segment], cursor: Cursor, pieces: Sequence[bytes] = ()) -> None:
        job_id = self._job.spec.job_id
        known = await self._patience(partial(self._ledger.add_segments, job_id, segments, cursor, pieces))
        self.cursor = replace(cursor, next_index=self.cursor.next_index)  # batches may have been halved meanwhile
        self.grown(known)
