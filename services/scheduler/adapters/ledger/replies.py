"""Reading kept replies, as many at a time as may be in memory."""

from dataclasses import replace

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.outcome_rows import STATE_NUMBERS, outcome_of
from services.scheduler.adapters.ledger.statements import job_key
from services.scheduler.domain.model.batch import BatchState, Outcome

MAX_BATCHES = 1000
_REPLIES = (
    "FROM outcomes JOIN replies USING (job, batch) WHERE job = ? AND batch >= ? AND batch < ?"
    f" AND state = {STATE_NUMBERS[BatchState.SUCCEEDED]} ORDER BY batch"
)


def find_replies(
    connection: Connection, job_id: str, first_index: int, end_index: int, max_bytes: int
) -> list[Outcome]:
    """What `Ledger.replies` tells, as of one moment. How large they are is asked first: a client may fetch all rows."""
    connection.execute("BEGIN")
    try:
        key = job_key(connection, job_id)
        sizes = connection.execute(
            f"SELECT batch, length(bytes) {_REPLIES} LIMIT {MAX_BATCHES}", (key, first_index, end_index)
        ).fetchall()
        end, room = first_index, max_bytes
        for batch, size in sizes:
            room -= size
            if room < 0 and end > first_index:
                break
            end = batch + 1
        found = connection.execute(
            f"SELECT batch, state, attempts, http_status, error, outcomes.ended_ns, bytes {_REPLIES}",  # constants
            (key, first_index, end),
        )
        return [replace(outcome_of(outcome), reply=reply) for *outcome, reply in found]
    finally:
        connection.execute("COMMIT")
