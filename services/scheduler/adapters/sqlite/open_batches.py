"""Finding a job's open batches among millions of final ones, in memory of the order of the holes.

Outcomes are counted block by block inside SQLite; only a block that misses some is looked at closely.
"""

import sqlite3

from services.scheduler.adapters.sqlite.outcome_rows import HISTORY_COLUMNS, history_of
from services.scheduler.adapters.sqlite.statements import job_key
from services.scheduler.domain.model.batch import History, OpenBatches

BLOCK = 4096
"""Batches in a block."""


def find_open_batches(connection: sqlite3.Connection, job_id: str, low_water: int) -> OpenBatches:
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
        connection.execute("ROLLBACK")


def _holes(connection: sqlite3.Connection, key: int, first: int, end: int) -> list[int]:
    block = "FROM outcomes WHERE job = ? AND batch >= ? AND batch < ?"
    values = (key, first, end)
    (final,) = connection.execute(f"SELECT count(*) {block}", values).fetchone()
    if final == end - first:
        return []
    # As one text: each row that Python fetches costs it the interpreter's lock.
    (found,) = connection.execute(f"SELECT group_concat(batch) {block}", values).fetchone()
    finals = set(map(int, found.split(","))) if found else set()
    return [index for index in range(first, end) if index not in finals]


def _histories(connection: sqlite3.Connection, key: int, low_water: int) -> dict[int, History]:
    found = connection.execute(
        f"SELECT batch, {HISTORY_COLUMNS} FROM histories WHERE job = ? AND batch >= ? AND NOT EXISTS"  # noqa: S608  # constants
        " (SELECT 1 FROM outcomes WHERE outcomes.job = histories.job AND outcomes.batch = histories.batch)",
        (key, low_water),
    )
    return {batch: history_of(columns) for batch, *columns in found}
