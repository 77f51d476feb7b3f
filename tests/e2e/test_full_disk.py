"""A disk that fills up in the middle: intake stops with a clear error, nothing is corrupted, work goes on with room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex.exceptions import CortexException
from tests.e2e.system import system
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own."""
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(data)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk can only be made as root")
    yield data
    subprocess.run(["umount", "-l", str(data)], check=True)


def test_a_full_disk_stops_intake_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy(max_concurrency=2)
        job_id = running.submit([{"n": n, "sleep": 0.02} for n in range(150)])
        wait_for("progress", lambda: len(running.done()) >= 10)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        with pytest.raises(CortexException) as error:
            running.submit(["x" * 100_000] * 20)
        assert error.value.kind == "ledger.storage_full"
        assert "full" in error.value.message
        done = len(running.done())
        wait_for("what is held up to be said", lambda: "full" in running.job(job_id).get("reason", ""))
        filler.unlink()
        job = running.wait(job_id)["job_status"]
        assert job["status"] == "succeeded"
        assert job["batch_counts"]["succeeded"] == 150
        assert len(running.done()) == 150 > done
        assert running.submit([1])
        assert running.stop() == 0
    with system(tmp_path) as running:
        assert running.job(job_id)["status"] == "succeeded"
