"""Threads that read, beside the one that writes, so that a read never waits for an fsync."""

import asyncio
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.scheduler.adapters.ledger.engine import Operation, Reading

T = TypeVar("T")


class Readers:
    """Runs queries, each on a connection of its own, as many at once as there are connections."""

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._idle: queue.SimpleQueue[Reading] = queue.SimpleQueue()
        for reading in readings:
            self._idle.put(reading)
        self._threads = ThreadPoolExecutor(len(readings), "ledger-reader")

    async def run(self, query: Operation[T]) -> T:
        """What the query returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)

    async def close(self) -> None:
        """Wait for the queries that run, then let go of the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for reading in self._readings:
            reading.close()

    def _run(self, query: Operation[T]) -> T:
        reading = self._idle.get()
        try:
            return reading.read(query)
        finally:
            self._idle.put(reading)
