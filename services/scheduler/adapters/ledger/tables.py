"""What every part of the ledger is made of: operations for the writer, queries for the readers."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.scheduler.adapters.ledger.engine import Connection, Row
from services.scheduler.adapters.ledger.readers import Readers
from services.scheduler.adapters.ledger.writer import Writer


class Tables:
    """Some of the ledger's tables.

    Each method that writes hands over one operation: a function of a connection, whose values were taken from its
    arguments before, so that it can be run again.
    """

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        def operation(connection: Connection) -> None:
            connection.execute(statement, values)

        await self._writer.submit(operation)

    async def _select(self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[Row]:
        def select(connection: Connection) -> list[Row]:
            return connection.execute(query, values).fetchall()

        return await self._readers.run(select)
