"""Finding a job's open batches among millions of final ones, in memory of the order of the holes.

Outcomes are counted block by block inside SQLite; only a block that misses some is looked at closely.
"""

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.outcome_rows import HISTORY_COLUMNS, history_of
from services.scheduler.adapters.ledger.statements import job_key
from services.scheduler.domain.model.batch import History, OpenBatches

BLOCK = 4096
"""Batches in a block."""
_BLOCK = "FROM outcomes WHERE job = :job AND batch >= :first AND batch < :end"
# One row for a gap: each row that Python fetches costs it the interpreter's lock.
_GAPS = (
    "SELECT before, behind FROM (SELECT batch AS before, lead(batch, 1, :end) OVER (ORDER BY batch) AS behind"  # noqa: S608  # constants
    f" FROM (SELECT :first - 1 AS batch UNION ALL SELECT batch {_BLOCK}) AS finals) AS pairs"
    " WHERE behind > before + 1 ORDER BY before"
)


def find_open_batches(connection: Connection, job_id: str, low_water: int) -> OpenBatches:
    """What `Ledger.open_batches` tells, as of one moment."""
    connection.execute("BEGIN")
    try:
        key = job_key(connection, job_id)
        (last,) = connection.execute("SELECT max(batch) FROM outcomes WHERE job = ?", (key,)).fetchone()
        next_index = low_water if last is None else max(low_water, last + 1)
        holes: list[int] = []
        for first in range(low_water, next_index, BLOCK):
            holes.extend(_holes(connection, key, first, min(first + BLOCK, next_index)))
        return OpenBatches(holes, next_index, _histories(connection, key, low_water))
    finally:
        connection.execute("COMMIT")


def _holes(connection: Connection, key: int, first: int, end: int) -> list[int]:
    values = {"job": key, "first": first, "end": end}
    (final,) = connection.execute(f"SELECT count(*) {_BLOCK}", values).fetchone()
    if final == end - first:
        return []
    gaps = connection.execute(_GAPS, values).fetchall()
    return [index for before, behind in gaps for index in range(before + 1, behind)]


def _histories(connection: Connection, key: int, low_water: int) -> dict[int, History]:
    found = connection.execute(
        f"SELECT batch, {HISTORY_COLUMNS} FROM histories WHERE job = ? AND batch >= ? AND NOT EXISTS"  # noqa: S608  # constants
        " (SELECT 1 FROM outcomes WHERE outcomes.job = histories.job AND outcomes.batch = histories.batch)",
        (key, low_water),
    )
    return {batch: history_of(columns) for batch, *columns in found}
