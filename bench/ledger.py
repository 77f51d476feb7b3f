"""The ledger's speed: the full life of batches, durable, so many at a time. `python -m bench.ledger [BATCHES]`

A life is: the item stream is stored with the job, segments and input are read back for dispatch, outcomes are recorded.
Beside it: what one commit costs alone, and how groups grow when many callers record at once. First in SQLite, then in a
PostgreSQL server that is started for it.
"""

import asyncio
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.scheduler.adapters.ledger.engine import Engine
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.postgresql.engine import PostgresEngine
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.model.batch import BatchState, Cursor, Outcome, Segment
from services.scheduler.domain.model.job import JobSpec, JobState, JobStatus, Tally
from tests.integration.postgres_kit import postgres_server

BATCH_BYTES = 1024
SEGMENT_BATCHES = 256
PIECE = b"x" * (SEGMENT_BATCHES * BATCH_BYTES)


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(f"batches of {BATCH_BYTES} bytes, from submission to outcome, each step durable")
    for name, engines in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        with engines() as new:
            for size, callers in ((1, 1), (8, 1), (64, 1), (256, 1), (64, 8), (1, 64)):
                count = min(batches, 2_500 * size * callers)
                seconds = asyncio.run(full_life(new(), count, size, callers))
                rate, each = count / seconds, seconds / count * 1e6
                print(
                    f"{name:10} {size:4} at a time, {callers:2} callers: {rate:10,.0f} batches/s {each:8.1f} us a batch"
                )


@contextmanager
def sqlite() -> Iterator[Callable[[], Engine]]:
    """Makes new ledgers in files, on the disk of the working directory."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as directory:
        yield lambda: SqliteEngine(Path(tempfile.mkdtemp(dir=directory)) / "ledger.db")


@contextmanager
def postgresql() -> Iterator[Callable[[], Engine]]:
    """Makes new ledgers in databases of a server that writes to its disk, over a unix socket."""
    with postgres_server(fsync="on", shared_buffers="128MB", max_wal_size="1GB") as server:
        yield lambda: PostgresEngine(server.url(server.database()))


async def full_life(engine: Engine, batches: int, size: int, callers: int) -> float:
    """Seconds for the whole life of so many batches."""
    ledger = await SqlLedger.open(engine)
    try:
        started = time.perf_counter()
        job_id = await add_job(ledger, batches)
        firsts = iter(range(0, batches, size))
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(lead(ledger, job_id, batches, size, firsts))
        return time.perf_counter() - started
    finally:
        await ledger.close()


async def add_job(ledger: SqlLedger, batches: int) -> str:
    """Store a job of so many batches."""
    segments = [
        Segment(first, first * BATCH_BYTES, array("I", [BATCH_BYTES] * min(SEGMENT_BATCHES, batches - first)))
        for first in range(0, batches, SEGMENT_BATCHES)
    ]
    spec = JobSpec("6fffffffffffffff", "bench", "1", 1, 1, "", None, None, None, 1, "")
    pieces = [PIECE] * len(segments)
    cursor = Cursor(batches, len(pieces) * len(PIECE), done=True)
    await ledger.add_job(spec, JobState(JobStatus.RUNNING), pieces, segments, cursor)
    return spec.job_id


async def lead(ledger: SqlLedger, job_id: str, batches: int, size: int, firsts: Iterator[int]) -> None:
    """Take ranges of batches: read what dispatch reads, then record their outcomes."""
    for first in firsts:
        if first % SEGMENT_BATCHES < size:
            (segment,) = await ledger.segments(job_id, first, 1)
            await ledger.read_input(job_id, segment.start, segment.start + sum(segment.lengths))
        outcomes = [
            Outcome(index, BatchState.SUCCEEDED, 1, 200, "", 1) for index in range(first, min(first + size, batches))
        ]
        await ledger.record(job_id, outcomes, {}, Tally(first, 0, first), first)


if __name__ == "__main__":
    main()
