"""The dequeuer with the real scheduler and its ledger."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.integration import scheduler_kit
from tests.integration.dequeuer_kit import HttpContainer, surroundings

BATCHES = 2000


def delivered(container: HttpContainer, count: int) -> Callable[[], bool]:
    return lambda: len(container.asked) >= count


async def test_a_scheduler_that_dies_twice_has_every_batch_delivered_once(tmp_path: Path) -> None:
    driver = scheduler_kit.ScriptedDriver()
    job_id = ""
    async with surroundings(tmp_path, concurrency=4) as kit:
        for crash_after in (300, 1000, None):
            async with scheduler_kit.scheduler(tmp_path, driver) as scheduler:
                if not job_id:
                    await scheduler.deploy()
                    job_id = await scheduler.submit(str(list(range(BATCHES))))
                    worker = await scheduler.worker()
                    kit.spec.job_id, kit.spec.worker_id, kit.spec.token = job_id, worker.id, worker.token
                    kit.spec.scheduler_address = scheduler.address
                    kit.start()
                if crash_after is not None:
                    await kit.container.until(delivered(kit.container, crash_after))
                    continue
                job = await scheduler.until(job_id, lambda job: job.HasField("end_time"))
                assert await kit.ended() == 0
        assert job.status == scheduler_kit.Job.STATUS_SUCCEEDED
        assert job.batch_counts.succeeded == BATCHES
        assert Counter(kit.container.batches) == Counter(range(BATCHES))
        assert [asked.path for asked in kit.container.asked].count("/on-job-complete") == 1
