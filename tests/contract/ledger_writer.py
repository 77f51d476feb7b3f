"""A process that writes to a ledger until it is killed. `python -m tests.contract.ledger_writer PATH`

It says on standard output, a line each, what was acknowledged to it: `job ID` and `batch ID INDEX`.
"""

import asyncio
import itertools
import os
import sys
from array import array
from pathlib import Path

from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.model.batch import BatchState, Cursor, Outcome, Segment
from services.scheduler.domain.model.job import JobSpec, JobState, JobStatus, Tally

PIECE = b"1," * 20_000
PIECES = 3
RECORDED_TOGETHER = 7
CALLERS = 8


async def main(path: Path) -> None:
    ledger = await SqlLedger.open(SqliteEngine(path))
    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(write(ledger, numbers))


async def write(ledger: SqlLedger, numbers: "itertools.count[int]") -> None:
    while True:
        job_id = f"{ledger.generation:08x}{next(numbers):08x}"
        spec = JobSpec(job_id, "api", "1", 1, 1, "[0]", None, None, None, 1, "")
        segments = [Segment(0, 0, array("I", [len(PIECE)] * PIECES))]
        await ledger.add_job(
            spec, JobState(JobStatus.RUNNING), [PIECE] * PIECES, segments, Cursor(PIECES, len(PIECE) * PIECES)
        )
        acknowledge(f"job {job_id}")
        for first in range(0, 20 * RECORDED_TOGETHER, RECORDED_TOGETHER):
            outcomes = [
                Outcome(index, BatchState.SUCCEEDED, 1, 200, "", 1) for index in range(first, first + RECORDED_TOGETHER)
            ]
            await ledger.record(job_id, outcomes, {}, Tally(first + RECORDED_TOGETHER), first)
            for outcome in outcomes:
                acknowledge(f"batch {job_id} {outcome.index}")


def acknowledge(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
