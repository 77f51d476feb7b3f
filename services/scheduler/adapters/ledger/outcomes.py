"""What became of batches."""

from array import array
from collections.abc import Mapping, Sequence
from functools import partial

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.input import append_segments
from services.scheduler.adapters.ledger.jobs import tally_columns
from services.scheduler.adapters.ledger.open_batches import find_open_batches
from services.scheduler.adapters.ledger.outcome_rows import (
    HISTORY_COLUMNS,
    STATE_NUMBERS,
    history_of,
    history_rows,
    outcome_of,
    outcome_rows,
    reply_chunks,
)
from services.scheduler.adapters.ledger.replies import find_replies
from services.scheduler.adapters.ledger.statements import KEEP, insert_rows, job_and_size
from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.batch import BatchState, Halves, History, OpenBatches, Outcome, Segment
from services.scheduler.domain.model.job import Tally

_MAX_INDEX = 2**63 - 1
_REPLACE_HISTORY = " ON CONFLICT (job, batch) DO UPDATE SET " + ", ".join(
    f"{column} = excluded.{column}" for column in HISTORY_COLUMNS.split(", ")
)


class OutcomeTables(Tables):
    """See `OutcomeLedger`."""

    async def record(
        self,
        job_id: str,
        outcomes: Sequence[Outcome],
        histories: Mapping[int, History],
        tally: Tally,
        low_water: int,
        halves: Sequence[Halves] = (),
    ) -> int:
        """See the port."""
        finals = outcome_rows(outcomes)
        replies = reply_chunks(outcomes)
        opens = history_rows(histories)
        counts = tally_columns(tally)
        more = [Segment(0, half.start, array("I", half.lengths)) for half in halves]

        def operation(connection: Connection) -> int:
            key, size = job_and_size(connection, job_id)
            insert_rows(connection, "outcomes", key, finals, KEEP)
            for chunk in replies:
                insert_rows(connection, "replies", key, chunk, KEEP)
            insert_rows(connection, "histories", key, opens, _REPLACE_HISTORY)
            # Histories of final batches above the low-water mark go when it reaches them; nobody is told of them.
            connection.execute("DELETE FROM histories WHERE job = ? AND batch < ?", (key, low_water))
            connection.execute(
                "UPDATE jobs SET batches_succeeded = ?, batches_failed = ?, batches_split = ?, attempts_succeeded = ?,"
                " attempts_failed = ?, succeeded_seconds = ?, buckets = ?,"
                " low_water = CASE WHEN low_water < ? THEN ? ELSE low_water END"
                " WHERE key = ?",
                (*counts, low_water, low_water, key),
            )
            return append_segments(connection, key, size, more)

        return await self._writer.submit(operation)

    async def outcomes(
        self,
        job_id: str,
        first_index: int = 0,
        end_index: int | None = None,
        *,
        state: BatchState | None = None,
        limit: int = 1000,
    ) -> list[Outcome]:
        """See the port."""
        # Written out: only so does SQLite use the index of the failed ones.
        condition = "" if state is None else f" AND state = {STATE_NUMBERS[state]}"
        found = await self._select(
            "SELECT batch, state, attempts, http_status, error, outcomes.ended_ns"  # noqa: S608  # constants
            " FROM outcomes, (SELECT key FROM jobs WHERE job_id = :job_id) AS asked"
            f" WHERE job = key AND batch >= :first AND batch < :end{condition}"
            " ORDER BY batch LIMIT :limit",
            {
                "job_id": job_id,
                "first": first_index,
                "end": _MAX_INDEX if end_index is None else end_index,
                "limit": limit,
            },
        )
        return [outcome_of(row) for row in found]

    async def replies(self, job_id: str, first_index: int, end_index: int | None, max_bytes: int) -> list[Outcome]:
        """See the port."""
        end = _MAX_INDEX if end_index is None else end_index
        return await self._readers.run(
            partial(find_replies, job_id=job_id, first_index=first_index, end_index=end, max_bytes=max_bytes)
        )

    async def histories(self, job_id: str, first_index: int, end_index: int) -> dict[int, History]:
        """See the port."""
        found = await self._select(
            f"SELECT batch, {HISTORY_COLUMNS} FROM histories, (SELECT key FROM jobs WHERE job_id = :job_id) AS asked"  # noqa: S608  # constants
            " WHERE job = key AND batch >= :first AND batch < :end",
            {"job_id": job_id, "first": first_index, "end": end_index},
        )
        return {batch: history_of(columns) for batch, *columns in found}

    async def open_batches(self, job_id: str, low_water: int) -> OpenBatches:
        """See the port."""
        return await self._readers.run(partial(find_open_batches, job_id=job_id, low_water=low_water))
