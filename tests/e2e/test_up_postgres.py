"""`cortex up` with its ledger in PostgreSQL: jobs live through the end of the scheduler, and of the server."""

import asyncio
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.postgresql.engine import PostgresEngine
from tests.e2e.system import CORTEX, System, system
from tests.integration.postgres_kit import PASSWORD, QUOTED_PASSWORD, Postgres, postgres_server
from tests.waiting import gone_within, wait_for

pytestmark = pytest.mark.timeout(120)

ITEMS = 150


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that may be killed."""
    with postgres_server() as started:
        yield started


def submit(running: System) -> str:
    running.deploy(max_concurrency=2)
    job_id = running.submit([{"n": n, "sleep": 0.02} for n in range(ITEMS)])
    wait_for("progress", partial(progressed, running, 10))
    return job_id


def progressed(running: System, least: int) -> bool:
    return len(running.done()) >= least


def outcomes(server: Postgres, database: str) -> list[tuple[int, int]]:
    """Behind the system's back: the batches that ended, and how."""
    return [(batch, state) for batch, state in server.execute("SELECT batch, state FROM outcomes ORDER BY 1", database)]


def test_a_job_lives_through_kill_9_of_the_scheduler(postgres: Postgres, tmp_path: Path) -> None:
    database = postgres.database()
    with system(tmp_path, options=["--ledger", postgres.url(database)]) as running:
        job_id = submit(running)
        (scheduler,) = running.processes("services.scheduler")
        scheduler.kill()
        job = running.wait(job_id)["job_status"]
        assert (job["status"], job["batch_counts"]["succeeded"]) == ("succeeded", ITEMS)
        assert running.done().total() == len(running.done()) == ITEMS
        assert len(running.completions()) == 1
        assert outcomes(postgres, database) == [(n, 1) for n in range(ITEMS)]
        assert not (running.data_dir / "ledger.db").exists()
        assert running.stop() == 0
    with system(tmp_path, options=["--ledger", postgres.url(database)]) as running:
        assert running.job(job_id)["status"] == "succeeded"


def test_a_job_lives_through_kill_9_of_the_server(server: Postgres, tmp_path: Path) -> None:
    database = server.database()
    with system(tmp_path, {"CORTEX_LEDGER": server.tcp_url(database)}) as running:
        job_id = submit(running)
        (container,) = running.containers()
        assert "CORTEX_LEDGER" not in container.environ()
        for least in (40, 80):
            server.kill()
            server.start()
            wait_for("more progress", partial(progressed, running, least))
        server.kill()
        done = len(running.done())
        with pytest.raises(Exception, match="cannot be reached") as refused:
            running.submit([1])
        assert PASSWORD not in str(refused.value)
        server.start()
        job = running.wait(job_id)["job_status"]
        assert (job["status"], job["batch_counts"]["succeeded"]) == ("succeeded", ITEMS)
        assert running.done().total() == len(running.done()) == ITEMS >= done
        assert outcomes(server, database) == [(n, 1) for n in range(ITEMS)]
        shown = [part.cmdline() for part in [psutil.Process(running.process.pid), *running.processes("-m")]]
        assert not any(hidden in word for words in shown for word in words for hidden in (PASSWORD, QUOTED_PASSWORD))
    logs = (tmp_path / "up.log").read_text() + "".join(file.read_text() for file in running.data_dir.rglob("*.log"))
    assert "cannot be reached" in logs
    assert PASSWORD not in logs
    assert QUOTED_PASSWORD not in logs


async def test_a_deposed_scheduler_ends_at_once_and_the_next_one_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url(postgres.database())
    with system(tmp_path, options=["--ledger", url]) as running:
        job_id = await asyncio.to_thread(submit, running)
        (scheduler,) = running.processes("services.scheduler")
        rival = await SqlLedger.open(PostgresEngine(url, take_over=True))
        try:
            assert await asyncio.to_thread(gone_within, scheduler.pid, 20.0)
            before = await rival.job(job_id)
            assert before is not None
            assert rival.generation == 2
            await asyncio.to_thread(wait_for, "being refused", partial(said, tmp_path, "uses the ledger"))
            assert await rival.job(job_id) == before, "nobody else has written"
        finally:
            await rival.close()
        job = (await asyncio.to_thread(running.wait, job_id))["job_status"]
        assert (job["status"], job["batch_counts"]["succeeded"]) == ("succeeded", ITEMS)
        assert running.done().total() == len(running.done()) == ITEMS
    assert said(tmp_path, "this one can write nothing any more")


def said(directory: Path, words: str) -> bool:
    return words in (directory / "up.log").read_text()


def test_a_second_system_on_the_same_database_is_refused(postgres: Postgres, tmp_path: Path) -> None:
    database, other = postgres.database(), tmp_path / "other"
    with system(tmp_path, options=["--ledger", postgres.url(database)]):
        command = [str(CORTEX), "up", "--port", "0", "--grpc-port", "0", "--data-dir", str(other)]
        second = subprocess.run([*command, "--ledger", postgres.url(database)], capture_output=True, text=True)
    assert second.returncode == 1
    assert "another scheduler" in second.stderr
    assert f"/{database}: end it" in second.stderr


def test_a_password_on_the_command_line_is_refused_without_being_said(postgres: Postgres) -> None:
    refused = subprocess.run([str(CORTEX), "up", "--ledger", postgres.tcp_url("x")], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "CORTEX_LEDGER" in refused.stderr
    assert QUOTED_PASSWORD not in refused.stderr
