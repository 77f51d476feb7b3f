"""Inputs beyond a request, on the whole system: `kill -9` in the middle of files, and a stream of items."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.fields import FileSelection
from tests.e2e.system import system
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

ITEMS = [f"{number} {'x' * 1000}" for number in range(48_000)]


def test_killing_the_scheduler_in_the_middle_of_files_neither_loses_nor_repeats_an_item(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    lines = [f'"{item}"\n' for item in ITEMS]
    (inputs / "large.jsonl").write_text("".join(lines[:20_000]))
    (inputs / "small").mkdir()
    for first in range(20_000, len(lines), 10):
        (inputs / "small" / f"{first}.jsonl").write_text("".join(lines[first : first + 10]))
    with system(tmp_path, options=["--input-root", str(inputs)]) as running:
        running.deploy(max_concurrency=2)
        files: FileSelection = {"s3_paths": [f"file://{inputs}/"], "batch_size": 100}
        job_id = running.client.submit_job("hello", workers=1, delimited_files=files, results=True)["job_id"]

        def in_the_middle() -> bool:
            job = running.job(job_id)
            return "total_batch_count" in job or sum(job["batch_counts"].values()) > 0

        killed = 0
        while True:
            wait_for("some batches", in_the_middle)
            if "total_batch_count" in running.job(job_id):
                break
            for scheduler in running.processes("services.scheduler"):
                scheduler.send_signal(signal.SIGKILL)
                killed += 1
            wait_for("the next scheduler", lambda: running.processes("services.scheduler"))
        assert killed
        job = running.wait(job_id)["job_status"]
        assert (job["status"], job["total_batch_count"]) == ("succeeded", 480), job
        replies = list(running.client.job_results("hello", job_id))
        assert [item for reply in replies for item in reply["reply"]["done"]] == ITEMS
        assert running.stop() == 0


def test_a_stream_of_items_is_worked_on_while_it_comes(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()

        def items() -> Iterator[int]:
            for number in range(10):
                yield number
                if number % 2:
                    wait_for("what came so far", lambda n=number: len(running.done()) > n)  # type: ignore[misc]  # binds now

        job_id = running.client.submit_stream("hello", items(), batch_size=2, workers=1)["job_id"]
        assert running.wait(job_id)["job_status"]["status"] == "succeeded"
        assert len(running.done()) == 10
        assert running.stop() == 0
