"""What finding bad items costs: every batch has one, and is halved until it is alone.

A batch of 16 items takes 9 attempts then, 5 of which fail, and becomes 5 batches that count: 8, 4, 2 and 1 good items,
and the bad one. The same job without bad items, in turns with it, tells what an attempt costs otherwise.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.containers import fast_server
from bench.report import Figure
from bench.system import System, running
from cortex.batch.v1.resources_pb2 import Job

BATCHES = 1000
BATCH_SIZE = 16
GOOD, BAD = '"' + "x" * 60 + '"', '"!"'
ATTEMPTS, FINAL = 9, 5
"""Of a batch with one bad item."""
WORKERS = 2
ROUNDS = 3


def figures() -> Iterator[Figure]:
    """Medians of the rounds after a first one; the ratio is that of neighbours."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        system.deploy(fast_server(Path(directory)).command(refuse="!"))
        good = [GOOD] * BATCH_SIZE * BATCHES * ATTEMPTS
        bad = ([BAD] + [GOOD] * (BATCH_SIZE - 1)) * BATCHES
        pairs = [
            (_seconds(system, good, BATCHES * ATTEMPTS, 0), _seconds(system, bad, BATCHES * FINAL, BATCHES))
            for _ in range(ROUNDS + 1)
        ][1:]
    ratio = 100 * median(plain / halving for plain, halving in pairs)
    rate = BATCHES * ATTEMPTS / median(halving for _, halving in pairs)
    yield Figure("split_failed.ratio", "a bad item in every batch: attempts a second beside good ones'", ratio, "%")
    yield Figure("split_failed.attempts", "  attempts, halves and all", rate, "/s")
    yield Figure("split_failed.found", "  bad items found among 16", rate / ATTEMPTS, "/s")


def _seconds(system: System, items: list[str], batches: int, failed: int) -> float:
    """How long the job worked: from its first final batch to its last."""
    submitted = system.submit(items, WORKERS, BATCH_SIZE, {"split_failed": True})
    seen = list(system.watch(submitted.job_id))
    counts = seen[-1].job.batch_counts
    status = Job.STATUS_COMPLETED_WITH_FAILURES if failed else Job.STATUS_SUCCEEDED
    if (seen[-1].job.status, counts.succeeded, counts.failed) != (status, batches - failed, failed):
        raise RuntimeError(f"not the end that was expected: {seen[-1].job.reason} {counts}")
    system.await_no_workers()
    began = next(each.at for each in seen if each.final_batches)
    return next(each.at for each in seen if each.final_batches == batches) - began
