"""What Prometheus reads of a running system."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import System, system
from tests.exposition import samples
from tests.ports import unused_port
from tests.waiting import wait_for

Series = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def port() -> int:
    return unused_port()


@pytest.fixture
def running(tmp_path: Path, port: int) -> Iterator[System]:
    with system(tmp_path, {"CORTEX_METRICS_ADDRESS": f"127.0.0.1:{port}"}) as one:
        one.deploy()
        yield one


def scraped(url: str) -> Series:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return samples(answer.read().decode())


def test_the_scheduler_tells_of_its_ledger_its_jobs_and_its_workers(running: System, port: int) -> None:
    running.wait(running.submit([1, 2, 3]))
    series = scraped(f"http://127.0.0.1:{port}")
    assert series["cortex_scheduler_leader"] == {(): 1}
    assert series["cortex_ledger_writes_total"][()] >= series["cortex_ledger_commit_seconds_count"][()] > 0
    assert series["cortex_ledger_failures_total"] == {(): 0}
    assert series["cortex_scheduler_worker_starts_total"] == {(): 1}
    assert series["cortex_scheduler_worker_losses_total"] == {(): 0}
    assert series["cortex_scheduler_jobs_ended_total"] == {(("status", "succeeded"),): 1}
    assert series["cortex_scheduler_jobs"] == {(): 0}


def test_a_job_at_work_shows_its_batches_and_its_workers(running: System, port: int) -> None:
    job_id = running.submit(["hang", 2])
    wait_for("a batch is out", lambda: running.job(job_id)["batch_counts"]["leased"] == 1)
    job = (("api_name", "hello"), ("job_id", job_id))
    series = scraped(running.url)
    assert series["cortex_job_batches"][(*job, ("state", "pending"))] == 1
    assert series["cortex_job_batches"][(*job, ("state", "leased"))] == 1
    assert series["cortex_job_workers"][(*job, ("state", "ready"))] == 1
    assert series["cortex_job_status"] == {(*job, ("status", "running")): 1}
    totals = scraped(f"http://127.0.0.1:{port}")
    assert totals["cortex_scheduler_workers"] == {(("state", "ready"),): 1}
    assert (totals["cortex_scheduler_jobs"][()], totals["cortex_scheduler_batches_leased"][()]) == (1, 1)
    running.client.stop_job("hello", job_id)
    series = scraped(running.url)
    assert series["cortex_job_status"] == {(*job, ("status", "stopped")): 1}
    assert "cortex_job_workers" not in series
