"""What can happen to a ledger because it is a file: crashes, a full disk, other processes, broken files."""

import asyncio
import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite import file as database
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.model.batch import BatchState, Cursor, Outcome
from services.scheduler.domain.model.job import JobSpec, JobState, JobStatus, Tally
from tests.contract.ledger_writer import PIECE, PIECES, RECORDED_TOGETHER

ROOT = Path(__file__).parents[2]
SPEC = JobSpec("6000000000000000", "digits", "1", 1, 1, "", None, None, None, 1, "")
RUNNING = JobState(JobStatus.RUNNING)


def child(module: str, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]  # options of Popen


# Crashes


@pytest.mark.parametrize("seed", range(5))
async def test_after_kill_9_everything_acknowledged_is_there_and_nothing_half(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    jobs: set[str] = set()
    batches: defaultdict[str, set[int]] = defaultdict(set)
    for _ in range(2):  # the second writer goes on in the ledger that the first one left
        read_until_killed(tmp_path / "ledger.db", chance.randrange(1, 3000), jobs, batches)
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    try:
        assert ledger.generation == 3
        stored = {job.spec.job_id: job for job in await ledger.jobs(limit=100_000)}
        assert jobs <= stored.keys()
        for job_id, job in stored.items():
            pieces = await ledger.read_input(job_id, 0, 10 * len(PIECE))
            assert pieces[-1].end == job.cursor.offset == PIECES * len(PIECE)
            (segment,) = await ledger.segments(job_id, 0, 10)
            assert len(segment.lengths) == job.cursor.next_index
            found = await ledger.open_batches(job_id, 0)
            assert found.holes == []
            assert found.next_index == job.tally.batches_succeeded
            assert found.next_index % RECORDED_TOGETHER == 0
            assert found.next_index > max(batches[job_id], default=-1)
    finally:
        await ledger.close()


def read_until_killed(path: Path, lines: int, jobs: set[str], batches: defaultdict[str, set[int]]) -> None:
    """Kill the writer behind so many lines, in the middle of whatever it does then; note all that it acknowledged."""
    with child("tests.contract.ledger_writer", str(path)) as writer:
        assert writer.stdout is not None
        for number, line in enumerate(writer.stdout, 1):
            if number == lines:
                writer.kill()
            if not line.endswith("\n"):
                break  # cut off by the kill
            what, job_id, *index = line.split()
            jobs.add(job_id)
            if what == "batch":
                batches[job_id].add(int(index[0]))


async def test_writes_share_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[str] = []
    connect = database.connect

    def watched(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        return connection

    monkeypatch.setattr(database, "connect", watched)
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    try:
        await ledger.add_job(SPEC, RUNNING, [], [], Cursor())
        before = len(commits)
        await asyncio.gather(*(ledger.record(SPEC.job_id, [], {}, Tally(count), 0) for count in range(500)))
        assert len(commits) - before < 50
    finally:
        await ledger.close()


# A full disk


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 4 MiB."""
    connect = database.connect

    def limited(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 512")
        return connection

    monkeypatch.setattr(database, "connect", limited)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(tmp_path: Path) -> None:
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    try:
        await ledger.add_job(SPEC, RUNNING, [b"1," * 1000], [], Cursor())
        large = JobSpec("5000000000000000", "digits", "1", 1, 1, "", None, None, None, 1, "")
        results = await asyncio.gather(
            ledger.record(SPEC.job_id, [Outcome(0, BatchState.SUCCEEDED, 1, 200, "", 1)], {}, Tally(1), 1),
            ledger.add_job(large, RUNNING, [b"1," * 100_000] * 50, [], Cursor()),
            ledger.set_state(SPEC.job_id, JobState(JobStatus.STOPPED)),
            return_exceptions=True,
        )
        error = results[1]
        assert isinstance(error, CortexError)
        assert (error.kind, error.category) == ("ledger.storage_full", Category.STORAGE_FULL)
        assert str(tmp_path / "ledger.db") in error.message
        assert [results[0], results[2]] == [0, None]
        assert await ledger.job(large.job_id) is None
        assert await ledger.read_input(large.job_id, 0, 10) == []
        job = await ledger.job(SPEC.job_id)
        assert job is not None
        assert (job.state.status, job.tally.batches_succeeded) == (JobStatus.STOPPED, 1)
    finally:
        await ledger.close()


def test_an_io_error_on_a_full_disk_is_told_as_a_full_disk(tmp_path: Path) -> None:
    failed = sqlite3.OperationalError("disk I/O error")
    failed.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert database.explain(failed, tmp_path / "ledger.db").kind == "ledger.failed"
    full = OSError(28, "No space left on device")
    assert database.explain(full, tmp_path / "ledger.db").category is Category.STORAGE_FULL


# Other processes


async def test_a_second_process_is_refused_and_told_who_has_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child("tests.contract.ledger_writer", str(path)) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().startswith("job ")
        try:
            with pytest.raises(CortexError, match=f"process {writer.pid}") as raised:
                await SqlLedger.open(SqliteEngine(path))
            assert (raised.value.kind, raised.value.category) == ("ledger.in_use", Category.CONFLICT)
        finally:
            writer.kill()
    ledger = await SqlLedger.open(SqliteEngine(path))  # the lock ended with its process
    assert ledger.generation == 2
    await ledger.close()


async def test_a_second_opening_is_refused_and_leaves_the_first_one_alone(tmp_path: Path) -> None:
    first = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    with pytest.raises(CortexError, match="uses the ledger"):
        await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    await first.add_job(SPEC, RUNNING, [], [], Cursor())
    await first.close()
    again = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    assert again.generation == 2
    assert await again.job(SPEC.job_id) is not None
    await again.close()


# Broken files


async def refusal(path: Path) -> CortexError:
    with pytest.raises(CortexError) as raised:
        await SqlLedger.open(SqliteEngine(path))
    assert str(path) in raised.value.message
    return raised.value


async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"dear diary, " * 1000)
    error = await refusal(path)
    assert error.kind == "ledger.failed"
    assert "move it away" in error.message
    assert path.read_bytes() == b"dear diary, " * 1000


async def test_the_database_of_another_program_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (entry TEXT)")
    before = path.read_bytes()
    assert "another program" in (await refusal(path)).message
    assert path.read_bytes() == before


async def test_a_newer_ledger_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await SqlLedger.open(SqliteEngine(path))).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE ledger SET version = version + 1")
        connection.commit()
    error = await refusal(path)
    assert (error.kind, error.category) == ("ledger.version_not_supported", Category.UNSUPPORTED)
    assert "newer release" in error.message


async def test_a_truncated_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await SqlLedger.open(SqliteEngine(path))).close()
    os.truncate(path, path.stat().st_size // 2)
    assert "restore it from a backup" in (await refusal(path)).message


async def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    """That is what a crash in the middle of the first start can leave."""
    (tmp_path / "ledger.db").touch()
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    assert ledger.generation == 1
    await ledger.close()


async def test_a_place_that_cannot_hold_a_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    assert "cannot be opened" in (await refusal(tmp_path / "ledger.db")).message
    (tmp_path / "file").touch()
    assert "cannot be opened" in (await refusal(tmp_path / "file" / "ledger.db")).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in (await refusal(tmp_path / "ledger.db")).message
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_may_not_grow_fails_the_write_with_a_sentence(tmp_path: Path) -> None:
    """A real write error under the writer thread: the process may not make files larger than 1 MiB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    path = tmp_path / "ledger.db"
    with child("tests.contract.ledger_writer", str(path), stderr=subprocess.PIPE, preexec_fn=limit) as writer:
        _, errors = writer.communicate()
    assert writer.returncode == 1
    assert f"the ledger {path} failed: disk I/O error" in errors
