"""One thread that writes, and groups commits.

Whatever waits when the thread is ready goes into one transaction, so that an fsync serves many callers: the busier
it is, the larger the groups. A group is optimistic: should anything in it fail, all of it is rolled back and each
operation is run again in a transaction of its own, so that one that fails takes none of its neighbours with it.
Operations must therefore bear being run twice. Results reach the event loop in one call for each group.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from services.common.errors import Category, CortexError

T = TypeVar("T")

OnCommit = Callable[[float, int, int], None]
"""Told of each group, in the writer's thread: the seconds it took, its operations, and how many of them the database
refused."""


def tell_nobody(_seconds: float, _operations: int, _refused: int) -> None:
    """For a ledger that nobody measures."""


class _Request(NamedTuple):
    operation: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class Writer:
    """Runs operations on its connection, in the order in which they were submitted. Belongs to one event loop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        explain: Callable[[sqlite3.Error], CortexError],
        on_commit: OnCommit = tell_nobody,
    ) -> None:
        self._connection = connection
        self._explain = explain
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._ended = self._loop.create_future()
        self._closing = False
        # A daemon: a process that ends without `close` must not wait for it; what was not committed was not promised.
        threading.Thread(target=self._run, name="ledger-writer", daemon=True).start()

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Run an operation; the future is done once what it did is on disk."""
        if self._closing:
            raise CortexError("ledger.failed", "the ledger is closed", Category.INTERNAL)
        future: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(_Request(operation, future))
        return future

    async def close(self) -> None:
        """Finish what was submitted, then close the connection and end the thread."""
        if not self._closing:
            self._closing = True
            self._requests.put(None)
        await asyncio.shield(self._ended)

    def _run(self) -> None:
        open_ = True
        while open_:
            group = [self._requests.get()]
            with suppress(queue.Empty):
                while True:
                    group.append(self._requests.get_nowait())
            requests = [request for request in group if request is not None]
            open_ = len(requests) == len(group)
            results = self._measured(requests) if requests else []
            if not open_:
                self._connection.close()
            with suppress(RuntimeError):  # the event loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._deliver, requests, results, not open_)

    def _measured(self, requests: list[_Request]) -> list[Any]:
        began = time.perf_counter()
        results = self._commit(requests)
        refused = sum(isinstance(result, CortexError) and result.kind.startswith("ledger.") for result in results)
        self._on_commit(time.perf_counter() - began, len(requests), refused)
        return results

    def _commit(self, requests: list[_Request]) -> list[Any]:
        """The result of each operation, or the exception that it raised."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [request.operation(connection) for request in requests]
            connection.execute("COMMIT")
            return results
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the caller, not to this thread
            with suppress(sqlite3.Error):  # SQLite rolls back by itself after some errors
                connection.execute("ROLLBACK")
            if len(requests) == 1:
                return [self._explain(error) if isinstance(error, sqlite3.Error) else error]
        return [result for request in requests for result in self._commit([request])]

    def _deliver(self, requests: list[_Request], results: list[Any], ended: bool) -> None:
        for request, result in zip(requests, results, strict=True):
            if request.future.done():  # its caller was cancelled meanwhile
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)
        if ended:
            self._ended.set_result(None)
