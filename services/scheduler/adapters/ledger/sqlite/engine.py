"""A ledger in one SQLite file, in WAL mode with `synchronous = FULL`."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from services.scheduler.adapters.ledger.engine import CannotWriteError, Opened, Operation
from services.scheduler.adapters.ledger.sqlite import file

T = TypeVar("T")

READERS = 2
"""Reads at once: one that is long (a restart's look at a huge job) leaves the other for dispatch."""


class SqliteEngine:
    """See `Engine`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> Opened:
        """See `Engine`."""
        with ExitStack() as opened:
            lock = file.take_lock(self._path)
            opened.callback(os.close, lock)
            try:
                connection = file.connect(self._path)
                opened.callback(connection.close)
                identity = file.prepare(connection, self._path)
                readings = []
                for _ in range(READERS):
                    readings.append(SqliteReading(file.connect_reader(self._path), self._path))
                    opened.callback(readings[-1].close)
            except (sqlite3.Error, OSError) as error:
                raise file.explain(error, self._path) from error
            opened.pop_all()
            return Opened(identity, SqliteWriting(connection, lock, self._path), [*readings])


class SqliteWriting:
    """See `Writing`. The lock on the file goes with the connection."""

    check_seconds: float | None = None

    def __init__(self, connection: sqlite3.Connection, lock: int, path: Path) -> None:
        self._connection = connection
        self._lock = lock
        self._path = path

    def transact(self, operation: Operation[T], wait_on: Callable[[CannotWriteError], bool]) -> T:
        """See `Writing`. The file is never away."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = operation(connection)
            connection.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):  # SQLite rolls back by itself after some errors
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise file.explain(error, self._path) from error
            raise
        return result

    def check(self) -> None:
        """See `Writing`."""

    def close(self) -> None:
        """See `Writing`."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class SqliteReading:
    """See `Reading`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def read(self, query: Operation[T]) -> T:
        """See `Reading`."""
        try:
            return query(self._connection)
        except sqlite3.Error as error:
            raise file.explain(error, self._path) from error

    def close(self) -> None:
        """See `Reading`."""
        self._connection.close()
