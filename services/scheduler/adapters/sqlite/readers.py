"""Threads that read, beside the one that writes, so that a read never waits for an fsync."""

import asyncio
import queue
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.common.errors import CortexError

T = TypeVar("T")


class Readers:
    """Runs queries, each on a connection of its own, as many at once as there are connections."""

    def __init__(self, connections: list[sqlite3.Connection], explain: Callable[[sqlite3.Error], CortexError]) -> None:
        self._connections = connections
        self._explain = explain
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for connection in connections:
            self._idle.put(connection)
        self._threads = ThreadPoolExecutor(len(connections), "ledger-reader")

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What the query returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)

    async def close(self) -> None:
        """Wait for the queries that run, then let go of the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            return query(connection)
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            self._idle.put(connection)
