"""Many rows in few statements.

Python's sqlite3 gives up the interpreter's lock at every step of a statement, and beside a busy event loop it is a
while before it gets it back (up to 5 ms). So what is many rows to us is one step here: `insert_rows` binds up to a
thousand rows to one statement.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import Connection

KEEP = " ON CONFLICT DO NOTHING"
"""At the end of an insertion: what is there already stands."""

MAX_ROWS_AT_ONCE = 1024
"""Rows in one statement; with 8 columns well below SQLite's limit of 32,766 parameters."""


def insert_rows(
    connection: Connection,
    table: str,
    key: int,
    rows: Sequence[tuple[Any, ...]],
    on_conflict: str = "",
    at_once: int = MAX_ROWS_AT_ONCE,
) -> None:
    """Insert a job's rows in few steps. The job's key is their first column.

    Chunks are powers of two, so that few statements are parsed.
    """
    done = 0
    while done < len(rows):
        size = min(at_once, 1 << (len(rows) - done).bit_length() - 1)
        chunk = chain.from_iterable(rows[done : done + size])
        connection.execute(_insert_text(table, len(rows[done]), size, on_conflict), (key, *chunk))
        done += size


@lru_cache
def _insert_text(table: str, columns: int, rows: int, on_conflict: str) -> str:
    row = f"(?1{', ?' * columns})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}{on_conflict}"  # noqa: S608  # constants and question marks


def marks(count: int) -> str:
    """Places for so many values."""
    return ", ".join("?" * count)


def job_key(connection: Connection, job_id: str) -> int:
    """What stands for a job in the other tables."""
    return job_and_size(connection, job_id)[0]


def job_and_size(connection: Connection, job_id: str) -> tuple[int, int]:
    """A job's key, and how many batches it has."""
    row = connection.execute("SELECT key, next_index FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise CortexError("ledger.failed", f"the ledger holds no job {job_id}", Category.INTERNAL)
    key, next_index = row
    return key, next_index
