"""The items of a job's batches, read back from where they lie.

A failed batch whose items are only referred to is copied when it fails (`copy_failed`), so that it is there however
long the files are. Where that was not possible either, it is told why.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from services.scheduler.domain.model.item_stream import SourceKind
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.usecases.input.input_reader import InputReader, UnreadableError
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.objects import ObjectStore

log = logging.getLogger(__name__)

RANGE_BYTES = 1024 * 1024
"""Read at once, unless a single batch is larger."""
GAP_BYTES = 16 * 1024
"""Read and thrown away, rather than to read twice."""
COPIES_BYTES = 4 * 1024 * 1024
"""Written at once."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a batch's items are in the item stream."""

    index: int
    start: int
    end: int


class BatchItems:
    """The items of one job's batches, as ranges of its item stream. Not for two tasks at once."""

    def __init__(self, ledger: Ledger, objects: ObjectStore, job: JobSpec) -> None:
        self._ledger = ledger
        self._job_id = job.job_id
        self._referred_to = job.source is not None and job.source.kind is SourceKind.FILE_CONTENTS
        self._reader = InputReader(ledger, objects, job.job_id, read_ahead=False)

    async def ranges(self, indexes: Sequence[int]) -> AsyncGenerator[tuple[int, bytes | UnreadableError], None]:
        """Batches (ascending) with their items, or why these cannot be read. Neighbours are read together."""
        position = 0
        while position < len(indexes):
            neighbours = await self._neighbours(indexes, position)
            position += len(neighbours)
            kept: dict[int, bytes] = {}
            if self._referred_to:
                kept = await self._ledger.kept_items(self._job_id, [place.index for place in neighbours])
            missing = [place for place in neighbours if place.index not in kept]
            found = await self._read(missing) if missing else {}
            for place in neighbours:
                yield place.index, kept[place.index] if place.index in kept else found[place.index]

    async def copy_failed(self, indexes: Sequence[int]) -> None:
        """Keep the items of batches (ascending) that failed, where the ledger does not hold them and they can be read.

        Raises `CortexError` when they cannot be written.
        """
        if not self._referred_to:
            return
        copies: dict[int, bytes] = {}
        lost: list[tuple[int, str]] = []
        position = 0
        while position < len(indexes):
            neighbours = await self._neighbours(indexes, position)
            position += len(neighbours)
            for place in neighbours:
                try:
                    items = await self._reader.copy(place.start, place.end)
                except UnreadableError as error:
                    lost.append((place.index, error.message))
                    if not error.lost:
                        position = len(indexes)  # the store is away: the others do not wait for it
                        break
                else:
                    if items is not None:
                        copies[place.index] = items
            if sum(map(len, copies.values())) >= COPIES_BYTES:
                await self._ledger.keep_items(self._job_id, copies)
                copies = {}
        if copies:
            await self._ledger.keep_items(self._job_id, copies)
        if lost:  # said once: a file that is gone may have had a million batches
            index, reason = lost[0]
            text = "job %s: the items of %d failed batches could not be kept, such as of batch %d: %s"
            log.warning(text, self._job_id, len(lost), index, reason)

    async def _neighbours(self, indexes: Sequence[int], position: int) -> list[_Place]:
        """The batches from a position on that are worth reading together."""
        segment = (await self._ledger.segments(self._job_id, indexes[position], 1))[0]
        starts = list(accumulate(segment.lengths, initial=segment.start))
        found: list[_Place] = []
        for index in indexes[position : position + len(segment.lengths)]:
            number = index - segment.first_index
            if number >= len(segment.lengths):
                break
            place = _Place(index, starts[number], starts[number + 1])
            if found and (place.start - found[-1].end > GAP_BYTES or place.end - found[0].start > RANGE_BYTES):
                break
            found.append(place)
        return found

    async def _read(self, places: Sequence[_Place]) -> dict[int, bytes | UnreadableError]:
        start, end = places[0].start, places[-1].end
        try:
            data = await self._reader.read(start, end)
        except UnreadableError as error:
            if len(places) == 1:
                return {places[0].index: error}
            found: dict[int, bytes | UnreadableError] = {}
            for place in places:
                found |= await self._read([place])
            return found
        return {place.index: data[place.start - start : place.end - start] for place in places}
