"""The `Ledger` port in SQL.

Writes go through one thread that groups commits (`writer.py`), reads through others (`readers.py`). Each subject has
its tables in a module of its own, written once for all databases; what differs between them is behind `engine.py`.
"""

import asyncio
from typing import Self

from services.scheduler.adapters.ledger.apis import ApiTables
from services.scheduler.adapters.ledger.engine import Engine, Identity
from services.scheduler.adapters.ledger.input import InputTables
from services.scheduler.adapters.ledger.jobs import JobTables
from services.scheduler.adapters.ledger.outcomes import OutcomeTables
from services.scheduler.adapters.ledger.readers import Readers
from services.scheduler.adapters.ledger.webhooks import WebhookTables
from services.scheduler.adapters.ledger.workers import WorkerTables
from services.scheduler.adapters.ledger.writer import OnCommit, OnDeposed, Writer, tell_nobody


class SqlLedger(ApiTables, JobTables, InputTables, OutcomeTables, WebhookTables, WorkerTables):
    """See `usecases/ports/ledger.py`. Belongs to the event loop on which it was opened."""

    def __init__(self, identity: Identity, writer: Writer, readers: Readers) -> None:
        super().__init__(writer, readers)
        self._identity = identity

    @classmethod
    async def open(cls, engine: Engine, on_commit: OnCommit = tell_nobody, on_deposed: OnDeposed = tell_nobody) -> Self:
        """Open the ledger, or make a new one, and count this opening. Raises `CortexError` as `Engine.open` does."""
        opened = await asyncio.to_thread(engine.open)
        return cls(opened.identity, Writer(opened.writing, on_commit, on_deposed), Readers(opened.readings))

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
