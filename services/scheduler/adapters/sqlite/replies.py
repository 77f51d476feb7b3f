"""Reading kept replies, as many at a time as may be in memory."""

import sqlite3
from contextlib import closing
from dataclasses import replace

from services.scheduler.adapters.sqlite.outcome_rows import STATE_NUMBERS, outcome_of
from services.scheduler.adapters.sqlite.statements import job_key
from services.scheduler.domain.model.batch import BatchState, Outcome

MAX_BATCHES = 1000


def find_replies(
    connection: sqlite3.Connection, job_id: str, first_index: int, end_index: int, max_bytes: int
) -> list[Outcome]:
    """What `Ledger.replies` tells."""
    query = (
        "SELECT batch, state, attempts, http_status, error, outcomes.ended_ns, bytes"  # noqa: S608  # constants
        " FROM outcomes JOIN replies USING (job, batch)"
        " WHERE job = ? AND batch >= ? AND batch < ?"
        f" AND state = {STATE_NUMBERS[BatchState.SUCCEEDED]} ORDER BY batch LIMIT {MAX_BATCHES}"
    )
    found: list[Outcome] = []
    size = 0
    with closing(connection.execute(query, (job_key(connection, job_id), first_index, end_index))) as cursor:
        for *outcome, reply in cursor:
            size += len(reply)
            if found and size > max_bytes:
                break
            found.append(replace(outcome_of(outcome), reply=reply))
    return found
