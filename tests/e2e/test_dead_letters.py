"""Failing batches in the whole system: attempted again, halved, and bad items in a real queue, through kill -9."""

import json
import signal
from itertools import chain
from pathlib import Path

import pytest

from tests.e2e.system import System, system
from tests.integration import sqs_kit
from tests.integration.sqs_kit import values
from tests.waiting import wait_for

GOOD = [{"n": number, "sleep": 0.005} for number in range(150)]
BAD = 7
ENDED = {"succeeded": 1, "failed": 0, "split": 0}
"""Attempts of a batch in such a state that succeeded."""
ITEMS = [item for number, good in enumerate(GOOD) for item in ((good, "fail") if number % 24 == 5 else (good,))]

pytestmark = pytest.mark.timeout(120)


def test_bad_items_reach_the_queue_once_and_the_others_succeed_though_the_scheduler_is_killed(tmp_path: Path) -> None:
    with sqs_kit.ministack() as sqs, system(tmp_path, sqs.environ) as running:
        arn = sqs.create("dead.fifo")
        running.deploy(max_concurrency=2)
        job_id = running.submit(
            ITEMS,
            workers=2,
            batch_size=16,
            split_failed=True,
            retries={"backoff_seconds": 0.05},
            sqs_dead_letter_queue={"arn": arn, "max_receive_count": 2},
        )
        for failures in (3, 20):
            wait_for("failures", lambda n=failures: _failures(running, job_id) >= n)  # type: ignore[misc]  # binds now
            [scheduler] = running.processes("services.scheduler")
            scheduler.send_signal(signal.SIGKILL)
        status = running.wait(job_id)
        job, metrics = status["job_status"], status["metrics"]
        assert job["status"] == "completed_with_failures"
        assert job["batch_counts"]["failed"] == BAD == ITEMS.count("fail")
        assert sum(job["batch_counts"].values()) == job["total_batch_count"] == metrics["succeeded"] + BAD
        pages = (running.client.operator.batches("hello", job_id, state=state, page_size=1000) for state in ENDED)
        batches = [batch for page in chain.from_iterable(pages) for batch in json.loads(page)["batches"]]
        items = [item for batch in batches if batch["state"] == "succeeded" for item in batch["items"]]
        assert sorted(item["n"] for item in items) == [item["n"] for item in GOOD]
        assert metrics["failed"] == sum(batch["attempts"] - ENDED[batch["state"]] for batch in batches)
        messages = sqs.messages(arn)
        assert [message["Body"] for message in messages] == ['["fail"]'] * BAD
        failed = {str(batch["index"]) for batch in batches if batch["state"] == "failed"}
        assert {values(message)["batch_index"] for message in messages} == failed
        assert running.stop() == 0


def _failures(running: System, job_id: str) -> int:
    return int(running.client.get_job("hello", job_id)["metrics"]["failed"])
