"""Many rows in few statements.

Python's sqlite3 gives up the interpreter's lock at every step of a statement, and beside a busy event loop it is a
while before it gets it back (up to 5 ms). So what is many rows to us is one step here: `insert_rows` binds up to a
thousand rows to one statement.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from services.common.errors import Category, CortexError

MAX_ROWS_AT_ONCE = 1024
"""Rows in one statement; with 8 columns well below SQLite's limit of 32,766 parameters."""


def insert_rows(
    connection: sqlite3.Connection,
    into: str,
    key: int,
    rows: Sequence[tuple[Any, ...]],
    at_once: int = MAX_ROWS_AT_ONCE,
) -> None:
    """Insert a job's rows (`into` ends in the table's name) in few steps. The job's key is their first column.

    Chunks are powers of two, so that few statements are parsed.
    """
    done = 0
    while done < len(rows):
        size = min(at_once, 1 << (len(rows) - done).bit_length() - 1)
        chunk = chain.from_iterable(rows[done : done + size])
        connection.execute(_insert_text(into, len(rows[done]), size), (key, *chunk))
        done += size


@lru_cache
def _insert_text(into: str, columns: int, rows: int) -> str:
    row = f"(?1{', ?' * columns})"
    return f"INSERT {into} VALUES {', '.join([row] * rows)}"  # noqa: S608  # constants and question marks


def job_key(connection: sqlite3.Connection, job_id: str) -> int:
    """What stands for a job in the other tables."""
    row = connection.execute("SELECT key FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise CortexError("ledger.failed", f"the ledger holds no job {job_id}", Category.INTERNAL)
    key: int = row[0]
    return key
