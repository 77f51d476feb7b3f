"""Workers and schedulers come and go as chance will have it, and every batch ends once.

Whatever happens: the counts are exact at every look, one worker at a time is asked for /on-job-complete, and the job
ends.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.scheduler.usecases.running import restart_budget, worker_pool
from tests.integration.chaos_kit import Chaos
from tests.integration.scheduler_kit import Job, scheduler

BATCHES = 60
WORKERS = 3


def outcomes(directory: Path) -> Iterator[tuple[int, int]]:
    with sqlite3.connect(directory / "ledger.db") as ledger:
        yield from ledger.execute("SELECT batch, state FROM outcomes ORDER BY batch")


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_every_batch_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(restart_budget, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(worker_pool, "UNKNOWN_PROCESS_GRACE_SECONDS", 0.05)
    chaos, job_id, over = Chaos(seed), "", False
    async with asyncio.timeout(40):
        while not over:
            async with scheduler(tmp_path, chaos.driver) as kit:
                if not job_id:
                    await kit.deploy()
                    job_id = await kit.submit(json.dumps(list(range(BATCHES))), workers=WORKERS)
                over = await chaos.go_on(kit, job_id)
                job = await kit.job(job_id)
            await chaos.scheduler_is_gone()
    assert job.status in (Job.STATUS_SUCCEEDED, Job.STATUS_COMPLETED_WITH_FAILURES), job.reason
    found = dict(outcomes(tmp_path))
    assert job.total_batch_count == BATCHES
    assert sorted(found) == list(range(BATCHES))
    assert (sum(found.values()), BATCHES - sum(found.values())) == (job.batch_counts.succeeded, job.batch_counts.failed)
    for index, succeeded in found.items():
        assert index in (chaos.successes if succeeded else chaos.failures) or chaos.losses.get(index, 0) >= 3
