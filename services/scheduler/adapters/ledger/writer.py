"""One thread that writes, and groups commits.

Whatever waits when the thread is ready goes into one transaction, so that an fsync serves many callers: the busier
it is, the larger the groups. A group is optimistic: should anything in it fail, all of it is rolled back and each
operation is run again in a transaction of its own, so that one that fails takes none of its neighbours with it.
Operations must therefore bear being run twice. Results reach the event loop in one call for each group.

Where nothing can be written at all the callers are told at once, those too that come while the fate of an earlier
transaction has yet to be found out.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import DEPOSED, CannotWriteError, Connection, Operation, Writing

T = TypeVar("T")

OnCommit = Callable[[float, int, int], None]
"""Told of each group, in the writer's thread: the seconds it took, its operations, and how many of them the database
refused."""

OnDeposed = Callable[[str], None]
"""Told, in the writer's thread, that another scheduler has opened the ledger after this one; in a sentence."""


def tell_nobody(*_: object) -> None:
    """For a ledger that nobody measures, or that nobody else can open."""


class _Request(NamedTuple):
    operation: Operation[Any]
    future: asyncio.Future[Any]


class Writer:
    """Runs operations on its connection, in the order in which they were submitted. Belongs to one event loop."""

    def __init__(
        self, writing: Writing, on_commit: OnCommit = tell_nobody, on_deposed: OnDeposed = tell_nobody
    ) -> None:
        self._writing = writing
        self._on_commit = on_commit
        self._on_deposed = on_deposed
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._ended = self._loop.create_future()
        self._closing = False
        # A daemon: a process that ends without `close` must not wait for it; what was not committed was not promised.
        threading.Thread(target=self._run, name="ledger-writer", daemon=True).start()

    def submit(self, operation: Operation[T]) -> "asyncio.Future[T]":
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
            group = self._take()
            requests = [request for request in group if request is not None]
            open_ = len(requests) == len(group)
            results = self._measured(requests) if requests else []
            if not open_:
                self._writing.close()
            self._tell(self._deliver, requests, results)
        self._tell(self._ended.set_result, None)

    def _take(self) -> list[_Request | None]:
        """What waits; when nothing does, wait for it."""
        group: list[_Request | None] = []
        while not group:
            with suppress(queue.Empty):
                group.append(self._requests.get(timeout=self._writing.check_seconds))
                while True:
                    group.append(self._requests.get_nowait())
            if not group:
                self._check()
        return group

    def _check(self) -> None:
        try:
            self._writing.check()
        except CortexError as error:
            self._note(error)

    def _measured(self, requests: Sequence[_Request]) -> list[Any]:
        began = time.perf_counter()
        results = self._commit(requests)
        refused = sum(isinstance(result, CortexError) and result.kind.startswith("ledger.") for result in results)
        self._on_commit(time.perf_counter() - began, len(requests), refused)
        return results

    def _commit(self, requests: Sequence[_Request]) -> list[Any]:
        """The result of each operation, or the exception that it raised."""

        def all_of_them(connection: Connection) -> list[Any]:
            return [request.operation(connection) for request in requests]

        try:
            return self._writing.transact(all_of_them, self._refuse_waiting)
        except CannotWriteError as error:
            self._note(error)
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the caller, not to this thread
            if len(requests) == 1:
                return [error]
        return [result for request in requests for result in self._commit([request])]

    def _refuse_waiting(self, error: CannotWriteError) -> bool:
        """Tell those that wait that nothing can be written; not those whose transaction may have been.

        False when the ledger is to be closed.
        """
        waiting: list[_Request] = []
        with suppress(queue.Empty):
            while True:
                request = self._requests.get_nowait()
                if request is None:  # `close`: nobody waits any longer
                    self._requests.put(None)
                    break
                waiting.append(request)
        self._tell(self._deliver, waiting, [error] * len(waiting))
        return not self._closing

    def _note(self, error: CortexError) -> None:
        if error.kind == DEPOSED:
            self._on_deposed(error.message)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(what, *arguments)

    def _deliver(self, requests: Sequence[_Request], results: Sequence[Any]) -> None:
        for request, result in zip(requests, results, strict=True):
            if request.future.done():  # its caller was cancelled meanwhile
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)
