"""The scheduler under faults: over its real wire and its real ledger; the workers are scripted."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.scheduler_kit import ScriptedDriver, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


def ended(job: Any) -> bool:
    return bool(job.HasField("end_time"))


async def test_more_batches_come_back_at_once_than_are_kept_ready(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        await kit.deploy()
        job_id = await kit.submit(json.dumps(list(range(400))))
        greedy = await kit.worker()
        await greedy.open(credit=400)
        await greedy.lease(130)
        driver.die(greedy.id)
        replacement = await kit.worker()
        await replacement.open(credit=2)
        await replacement.work_off()
        await replacement.answer_completion()
        job = await kit.until(job_id, ended)
        assert job.batch_counts.succeeded == 400
