"""Reading ranges of an item stream that lies partly in the ledger and partly in files, on the real ledger and files."""

import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.model.item_stream import Piece, Reference, StoredObject
from services.scheduler.domain.model.job import JobSpec, JobState, JobStatus
from services.scheduler.usecases.input.input_reader import CACHE_BYTES, FETCH_BYTES, InputReader, UnreadableError
from tests.integration.observed_store import Directory

JOB = JobSpec("6000000000000000", "hello", "1", 1, 1, "", None, None, None, 1, "")
PIECE = 100_000


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    yield opened
    await opened.close()


@pytest.fixture
def files(tmp_path: Path) -> Directory:
    (tmp_path / "inputs").mkdir()
    return Directory(tmp_path / "inputs")


async def referred_to(files: Directory, name: str, data: bytes) -> list[Piece]:
    """A file as references."""
    files.write_file(name, data)
    [page] = [page async for page in files.list(files.uri + name)]
    return [reference(page[0], data, start) for start in range(0, len(data), PIECE)]


def reference(stored: StoredObject, data: bytes, start: int) -> Reference:
    items = data[start : start + PIECE].replace(b"\n", b",")
    if start + PIECE >= len(data) and not items.endswith(b","):
        items += b","
    return Reference(stored, start, len(items), zlib.crc32(items))


def lines(size: int, seed: int) -> bytes:
    numbers = random.Random(seed)  # a reproducible one
    return bytes(numbers.choices(b"123456789", k=size - 1)).replace(b"9", b"\n") + b"\n"


async def test_every_range_is_read_wherever_it_lies(ledger: SqlLedger, files: Directory) -> None:
    first, last = lines(350_000, 1), lines(250_000, 2)[:-1]
    pieces = [b"1,2,", *await referred_to(files, "a", first), b"3,", b"44,", *await referred_to(files, "b", last)]
    expected = b"1,2," + first.replace(b"\n", b",") + b"3,44," + last.replace(b"\n", b",") + b","
    await ledger.add_job(JOB, JobState(JobStatus.RUNNING), pieces, [], Cursor())
    numbers = random.Random(3)  # a reproducible one
    for ahead in (False, True):
        reader = InputReader(ledger, files, JOB.job_id, read_ahead=ahead)
        for start, end in [
            (0, len(expected)),
            (0, 4),
            (0, 5),
            *(sorted(numbers.choices(range(len(expected) + 10), k=2)) for _ in range(60)),
        ]:
            assert await reader.read(start, end) == expected[start:end]


async def test_references_that_follow_each_other_are_one_request(ledger: SqlLedger, files: Directory) -> None:
    data = lines(3 * FETCH_BYTES, 4)
    await ledger.add_job(JOB, JobState(JobStatus.RUNNING), await referred_to(files, "a", data), [], Cursor())
    reader = InputReader(ledger, files, JOB.job_id, read_ahead=True)
    for start in range(0, len(data), 10_000):
        assert await reader.read(start, start + 10_000) == data[start : start + 10_000].replace(b"\n", b",")
    assert len(files.reads) <= len(data) // (FETCH_BYTES // 2)
    assert sum(end - start for _, start, end in files.reads) == len(data), "nothing is read twice"
    assert sum(len(piece) for piece in reader._cache.values()) <= CACHE_BYTES


async def test_what_is_stored_is_asked_of_no_store(ledger: SqlLedger, files: Directory) -> None:
    await ledger.add_job(JOB, JobState(JobStatus.RUNNING), [b"1,2,", b"3,"], [], Cursor())
    reader = InputReader(ledger, files, JOB.job_id, read_ahead=True)
    assert await reader.read(0, 100) == b"1,2,3,"
    assert await reader.copy(0, 4) is None
    assert files.reads == []


async def test_a_file_that_is_lost_is_not_asked_for_again(ledger: SqlLedger, files: Directory) -> None:
    pieces = [*await referred_to(files, "a", lines(300_000, 5)), b"1,"]
    await ledger.add_job(JOB, JobState(JobStatus.RUNNING), pieces, [], Cursor())
    (files.root / "a").write_bytes(b"other")
    reader = InputReader(ledger, files, JOB.job_id, read_ahead=True)
    for start in (0, 100_000, 299_990):
        with pytest.raises(UnreadableError, match="/a") as error:
            await reader.read(start, start + 11)
        assert error.value.lost
    assert len(files.reads) == 1
    assert await reader.read(300_000, 300_002) == b"1,"


async def test_a_store_that_is_away_is_asked_again(ledger: SqlLedger, files: Directory) -> None:
    data = lines(200_000, 6)
    await ledger.add_job(JOB, JobState(JobStatus.RUNNING), await referred_to(files, "a", data), [], Cursor())
    reader = InputReader(ledger, files, JOB.job_id, read_ahead=True)
    files.away = True
    with pytest.raises(UnreadableError) as error:
        await reader.read(0, 10)
    assert not error.value.lost
    files.away = False
    assert await reader.read(0, 10) == data[:10].replace(b"\n", b",")
