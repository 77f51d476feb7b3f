"""kill -9 of each kind of process, at several moments: no batch is lost, none is recorded twice, and the job ends."""

import json
import random
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.system import System, system
from tests.waiting import left_after, wait_for

ITEMS = [{"n": number, "sleep": 0.01} for number in range(200)]
KINDS = {
    "the gateway": "services.gateway",
    "the scheduler": "services.scheduler",
    "the collector": "services.collector",
    "a dequeuer": "services.dequeuer",
    "a container": "container",
}

pytestmark = pytest.mark.timeout(120)


def victims(running: System, module: str) -> list[psutil.Process]:
    return running.containers() if module == "container" else running.processes(module)


def check_end(running: System, job_id: str) -> None:
    """Nothing was lost, nothing recorded twice, whatever was done twice."""
    status = running.wait(job_id)
    job = status["job_status"]
    assert job["status"] == "succeeded", job
    assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": len(ITEMS), "failed": 0}
    assert (status["metrics"]["succeeded"], status["metrics"]["failed"]) == (len(ITEMS), 0)
    done = running.done()
    assert sorted(done) == sorted(json.dumps(item) for item in ITEMS)
    assert len(running.completions()) == 1
    replies = list(running.client.job_results("hello", job_id))
    assert replies == [{"batch": index, "reply": {"done": [item]}} for index, item in enumerate(ITEMS)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_killing(kind: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{kind} {seed}")
    with system(tmp_path) as running:
        running.deploy(max_concurrency=2)
        job_id = running.submit(ITEMS, workers=2, results=True)
        for _ in range(2):
            progress = len(running.done()) + rng.randrange(1, 40)
            wait_for("progress", lambda p=progress: len(running.done()) >= p)  # type: ignore[misc]  # binds now
            found = wait_for("a victim", lambda: victims(running, KINDS[kind]))
            victim = rng.choice(found)
            victim.send_signal(signal.SIGKILL)
        check_end(running, job_id)
        assert running.stop() == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_killing_cortex_up_ends_everything_and_the_next_one_goes_on(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    with system(tmp_path) as running:
        running.deploy(max_concurrency=2)
        job_id = running.submit(ITEMS, workers=2, results=True)
        progress = rng.randrange(0, 100)
        wait_for("progress", lambda: len(running.done()) >= progress)
        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        assert not left_after(2.0, family)
    with system(tmp_path) as running:
        check_end(running, job_id)
        assert running.stop() == 0


def test_stopping_in_the_middle_hands_everything_back_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(max_concurrency=2)
        job_id = running.submit(ITEMS, workers=2, results=True)
        wait_for("progress", lambda: len(running.done()) >= 20)
        family = psutil.Process(running.process.pid).children(recursive=True)
        assert running.stop() == 0
        assert not [process for process in family if process.is_running()]
        done = running.done()
        assert max(done.values()) == 1
    with system(tmp_path) as running:
        check_end(running, job_id)
        assert max(running.done().values()) == 1, "a clean stop does no batch twice"
