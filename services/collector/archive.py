"""The store as the event loop sees it: one thread of its own, and trouble with the disk kept away from the senders."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cortex.batch.v1 import trace_service_pb2
from services.collector.spans import placed
from services.collector.store import Store
from services.common.errors import Category, CortexError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Archive:
    """Keeps spans and gives traces."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "traces")
        self._failing = False

    async def add(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of a request. Where that fails they are lost, which is said once until it works again."""
        try:
            await self._in_thread(lambda: self._store.add(placed(request)))
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.warning("spans cannot be kept and are dropped until they can: %s", error)
            self._failing = True
        else:
            self._failing = False

    async def trace(self, trace_id: bytes) -> tuple[list[trace_service_pb2.Span], int]:
        """A trace's spans, oldest first, and how many were dropped. Raises `CortexError` when they cannot be read."""
        try:
            return await self._in_thread(lambda: self._store.trace(trace_id))
        except (sqlite3.Error, OSError) as error:
            message = f"the collector cannot read its traces: {error}"
            raise CortexError("trace.unavailable", message, Category.UNAVAILABLE) from error

    async def close(self) -> None:
        """Finish what was begun and let go of the file."""
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
