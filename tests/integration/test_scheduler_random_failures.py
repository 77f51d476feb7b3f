"""Retries, halving and a dead letter queue while workers, schedulers and the queue come and go as chance will have it.

Whatever fails: each item ends in exactly one of {succeeded, failed}, the counts sum to the total at every look, every
failed attempt counts once, and the queue has what failed.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2, worker_service_pb2
from services.common.errors import Category, CortexError
from services.scheduler.usecases.ports.dead_letters import MESSAGE_REFUSED, DeadLetter
from services.scheduler.usecases.running import giving_up, restart_budget, worker_pool
from tests.integration.chaos_kit import Chaos
from tests.integration.scheduler_kit import Job, Kit, scheduler

ITEMS, BATCH_SIZE, WORKERS, ATTEMPTS = 60, 7, 3, 2
Batch = resources_pb2.Batch


class Failures(Chaos):
    """Some items are bad for good, some attempts fail by chance; the queue takes a letter and says so, or does not."""

    def __init__(self, seed: int, *, split: bool, queue: bool) -> None:
        super().__init__(seed)
        self.split, self.queue = split, queue
        self.bad = {item for item in range(ITEMS) if self.random.random() < 0.1}
        self.letters: list[DeadLetter] = []

    def request(self) -> pb.SubmitJobRequest:
        made = pb.SubmitJobRequest(api_name="hello", workers=WORKERS, split_failed=self.split)
        made.item_list.items_json = json.dumps([*range(ITEMS)])
        made.item_list.batch_size = BATCH_SIZE
        made.retries.max_attempts = ATTEMPTS
        made.retries.backoff_seconds = made.retries.max_backoff_seconds = 0.002
        if self.queue:
            made.sqs_dead_letter_queue.arn = "arn:aws:sqs:us-west-2:123456789012:dead"
            made.sqs_dead_letter_queue.max_receive_count = ATTEMPTS
        return made

    def succeeds(self, lease: worker_service_pb2.Lease) -> bool:
        return not self.bad & set(json.loads(lease.payload)) and self.random.random() < 0.9

    # The queue

    async def check(self, arn: str) -> None:
        pass

    async def send(self, arn: str, letter: DeadLetter) -> None:
        chance = self.random.random()
        if chance < 0.05:
            raise CortexError(MESSAGE_REFUSED, "no")
        if chance < 0.3:
            raise CortexError("aws.unavailable", "not now", Category.UNAVAILABLE)
        self.letters.append(letter)
        if chance < 0.5:
            raise CortexError("aws.unavailable", "the answer was lost", Category.UNAVAILABLE)


async def every_batch(kit: Kit, job_id: str) -> list[Batch]:
    states = (Batch.STATE_SUCCEEDED, Batch.STATE_FAILED, Batch.STATE_SPLIT)
    request = pb.ListBatchesRequest(api_name="hello", job_id=job_id, states=states, page_size=1000)
    page = await kit.batch.ListBatches(request)
    assert not page.next_page_token
    return list(page.batches)


@pytest.mark.parametrize(("split", "queue"), [(True, False), (False, True), (True, True), (False, False)])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_every_item_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, split: bool, queue: bool
) -> None:
    monkeypatch.setattr(restart_budget, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(worker_pool, "UNKNOWN_PROCESS_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(giving_up, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(giving_up, "LONGEST_PAUSE_SECONDS", 0.001)
    chaos, job_id, over = Failures(seed, split=split, queue=queue), "", False
    async with asyncio.timeout(60):
        while not over:
            async with scheduler(tmp_path, chaos.driver, queues=chaos) as kit:
                if not job_id:
                    await kit.deploy()
                    job_id = (await kit.batch.SubmitJob(chaos.request())).job.job_id
                over = await chaos.go_on(kit, job_id)
                job, batches = await kit.job(job_id), await every_batch(kit, job_id) if over else []
            await chaos.scheduler_is_gone()
    assert job.status in (Job.STATUS_SUCCEEDED, Job.STATUS_COMPLETED_WITH_FAILURES), job.reason
    by_state = {
        state: [batch for batch in batches if batch.state == state]
        for state in (Batch.STATE_SUCCEEDED, Batch.STATE_FAILED, Batch.STATE_SPLIT)
    }
    succeeded, failed, halved = by_state.values()
    assert Counter(item for batch in succeeded + failed for item in json.loads(batch.items_json)) == Counter(
        range(ITEMS)
    )
    assert not chaos.bad & {item for batch in succeeded for item in json.loads(batch.items_json)}
    assert (len(succeeded), len(failed)) == (job.batch_counts.succeeded, job.batch_counts.failed)
    assert job.total_batch_count == len(succeeded + failed)
    assert [batch.index for batch in batches] == list(range(len(batches)))
    assert len(batches) == -(-ITEMS // BATCH_SIZE) + 2 * len(halved)
    assert job.metrics.failed == sum(batch.attempts for batch in failed + halved) + sum(
        batch.attempts - 1 for batch in succeeded
    )
    assert all(batch.attempts == ATTEMPTS or chaos.losses.get(batch.index, 0) >= 3 for batch in failed + halved)
    if split:
        assert all(len(json.loads(batch.items_json)) == 1 for batch in failed)
    else:
        assert not halved
    if queue:
        kept = {batch.index for batch in failed if "it is kept here" in batch.error}
        sent = {letter.index: letter for letter in chaos.letters}
        assert set(sent) | kept == {batch.index for batch in failed}
        assert all(sent[batch.index].body == batch.items_json for batch in failed if batch.index in sent)
    else:
        assert not chaos.letters
