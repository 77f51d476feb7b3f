"""The `Ledger` port on SQLite.

One file in WAL mode with `synchronous = FULL`. Writes go through one thread that groups commits (`writer.py`), reads
through others (`readers.py`). Each subject has its tables in a module of its own.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from services.scheduler.adapters.sqlite import database
from services.scheduler.adapters.sqlite.apis import ApiTables
from services.scheduler.adapters.sqlite.input import InputTables
from services.scheduler.adapters.sqlite.jobs import JobTables
from services.scheduler.adapters.sqlite.outcomes import OutcomeTables
from services.scheduler.adapters.sqlite.readers import Readers
from services.scheduler.adapters.sqlite.webhooks import WebhookTables
from services.scheduler.adapters.sqlite.workers import WorkerTables
from services.scheduler.adapters.sqlite.writer import OnCommit, Writer, tell_nobody

READERS = 2
"""Reads at once: one that is long (a restart's look at a huge job) leaves the other for dispatch."""


class SqliteLedger(ApiTables, JobTables, InputTables, OutcomeTables, WebhookTables, WorkerTables):
    """See `usecases/ports/ledger.py`. Belongs to the event loop on which it was opened."""

    def __init__(self, identity: database.Identity, lock: int, writer: Writer, readers: Readers) -> None:
        super().__init__(writer, readers)
        self._identity = identity
        self._lock = lock

    @classmethod
    async def open(cls, path: Path, on_commit: OnCommit = tell_nobody) -> Self:
        """Open the ledger, or make a new one, and count this opening.

        Raises `CortexError`: `ledger.in_use`, `ledger.version_not_supported`, `ledger.storage_full`, `ledger.failed`.
        """
        lock, connection, identity, reading = await asyncio.to_thread(_open, path)
        explain = partial(database.explain, path=path)
        return cls(identity, lock, Writer(connection, explain, on_commit), Readers(reading, explain))

    @property
    def generation(self) -> int:
        """See the port."""
        return self._identity.generation

    @property
    def secret(self) -> bytes:
        """See the port."""
        return self._identity.secret

    async def close(self) -> None:
        """See the port. May be called again."""
        await self._readers.close()
        await self._writer.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _open(path: Path) -> tuple[int, sqlite3.Connection, database.Identity, list[sqlite3.Connection]]:
    lock = database.take_lock(path)
    closers: list[Callable[[], None]] = [partial(os.close, lock)]
    try:
        connection = database.connect(path)
        closers.append(connection.close)
        identity = database.prepare(connection, path)
        reading = []
        for _ in range(READERS):
            reading.append(database.connect_reader(path))
            closers.append(reading[-1].close)
        return lock, connection, identity, reading
    except BaseException as error:
        for close in reversed(closers):
            close()
        if isinstance(error, sqlite3.Error | OSError):
            raise database.explain(error, path) from error
        raise
