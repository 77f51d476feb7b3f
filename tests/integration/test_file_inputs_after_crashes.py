"""The scheduler crashes, again and again, while a job's files are read: each item is in exactly one batch.

A seed decides after how many reads and writes the next crash comes; the wire and the threads decide what is under way
then.
"""

import asyncio
import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from cortex.batch.v1 import resources_pb2
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.input import file_source
from tests.integration.file_jobs import ask, finish, stored_bytes, stream, submit, values
from tests.integration.observed_store import Directory
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, ScriptedWorker, scheduler


class Crashes:
    """Says when the next one is due."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # a reproducible one
        self.due = asyncio.Event()
        self.left = 0
        self.happened = 0

    def plan(self) -> None:
        self.due.clear()
        self.left = self.random.randrange(1, 12)

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.due.set()

    async def at_read(self, stored: StoredObject, start: int) -> None:
        self.step()

    def at_writes(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        write = kit.ledger.add_segments

        async def counted(*arguments: Any) -> int:
            self.step()
            known = await write(*arguments)
            self.step()
            return known

        monkeypatch.setattr(kit.ledger, "add_segments", counted)


def write_files(files: Directory, seed: int) -> bytes:
    """Files of several kinds; the item stream that they make."""
    items = [values(30_000, seed), values(5_000, seed + 1), values(400, seed + 2), values(20_000, seed + 3)]
    lines = [b"".join(item + b"\n" for item in some) for some in items]
    files.write_file("a.jsonl", lines[0][:-1])
    files.write_file("b.jsonl.gz", gzip.compress(lines[1], 1))
    for number in range(40):
        files.write_file(
            f"c/{number:02}", b"".join(item + b"\r\n" for item in items[2][number * 10 : number * 10 + 10])
        )
    files.write_file("d.jsonl", lines[3])
    return b"".join(lines).replace(b"\n", b",")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch_size", [1, 97])
async def test_whatever_crashes_each_item_is_in_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, batch_size: int
) -> None:
    (tmp_path / "inputs").mkdir()
    files, driver, crashes = Directory(tmp_path / "inputs"), ScriptedDriver(), Crashes(seed)
    expected = write_files(files, seed)
    monkeypatch.setattr(file_source, "RANGE_BYTES", 1_500_000)
    files.before_chunk = crashes.at_read
    job_id, seen = "", dict[int, bytes]()
    worker: ScriptedWorker | None = None
    while True:
        async with scheduler(tmp_path, driver, objects=files) as kit:
            crashes.plan()
            crashes.at_writes(kit, monkeypatch)
            if not job_id:
                await kit.deploy()
                job_id = await submit(kit, ask("delimited_files", files.uri, batch_size))
            if await is_split(kit, job_id, crashes):
                worker = worker or await kit.worker()
                await worker.open(credit=512)
                job = await finish(kit, job_id, worker, seen)
                break
            crashes.happened += 1
    assert job.status == Job.STATUS_SUCCEEDED
    assert sorted(seen) == list(range(job.total_batch_count))
    assert stream(seen) == expected
    assert crashes.happened >= 3
    assert stored_bytes(tmp_path) < len(expected) / 2, "what can be read again is not copied"


async def is_split(kit: Kit, job_id: str, crashes: Crashes) -> bool:
    """Wait until the job's input is split (True) or the next crash is due."""

    def split(job: resources_pb2.Job) -> bool:
        assert not job.HasField("end_time"), job.reason
        return job.HasField("total_batch_count")

    watching = asyncio.create_task(kit.until(job_id, split))
    crashing = asyncio.create_task(crashes.due.wait())
    done, open_ = await asyncio.wait({watching, crashing}, return_when=asyncio.FIRST_COMPLETED)
    for task in open_:
        task.cancel()
    await asyncio.wait({watching, crashing})
    if watching in done:
        watching.result()
    return watching in done
