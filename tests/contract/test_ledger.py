"""What every ledger promises: each sentence of the port, on each ledger that there is."""

import asyncio
import dataclasses
import sqlite3
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.postgresql.engine import PostgresEngine
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState, Cursor, Halves, History, Outcome, Segment
from services.scheduler.domain.model.item_stream import Piece, PlacedPiece, Reference, StoredObject
from services.scheduler.domain.model.job import Completion, JobRecord, JobSpec, JobState, JobStatus, RequestKey, Tally
from services.scheduler.domain.model.options import DeadLetterQueue
from services.scheduler.domain.model.worker import WorkerRecord
from services.scheduler.usecases.ports.ledger import Ledger
from tests.integration.postgres_kit import Postgres


class SqliteStore:
    """One ledger in one file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.db"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        ledger = await SqlLedger.open(SqliteEngine(self._path))
        try:
            yield ledger
        finally:
            await ledger.close()

    def outcomes(self, job_id: str) -> list[tuple[Any, ...]]:
        """Behind the port's back: what is stored of a job's outcomes."""
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(
                "SELECT batch, state, attempts, http_status, error, outcomes.ended_ns FROM outcomes"
                " JOIN jobs ON key = job WHERE job_id = ? ORDER BY batch",
                (job_id,),
            ).fetchall()


class PostgresStore:
    """One ledger in a database of its own."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._database = postgres.database()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        ledger = await SqlLedger.open(PostgresEngine(self._postgres.url(self._database)))
        try:
            yield ledger
        finally:
            await ledger.close()

    def outcomes(self, job_id: str) -> list[tuple[Any, ...]]:
        """As above."""
        return self._postgres.execute(
            "SELECT batch, state, attempts, http_status, error, outcomes.ended_ns FROM outcomes"
            f" JOIN jobs ON key = job WHERE job_id = '{job_id}' ORDER BY batch",
            self._database,
        )


Store = SqliteStore | PostgresStore


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SqliteStore(tmp_path)
    return PostgresStore(request.getfixturevalue("postgres"))


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[Ledger]:
    async with store.opened() as opened:
        yield opened


def api(name: str, api_id: str = "1", deployed_ns: int = 1) -> ApiVersion:
    return ApiVersion(name, api_id, f"/{name}", f'{{"name": "{name}"}}', deployed_ns)


def spec(job_id: str = "6000000000000000", api_name: str = "digits", **changes: Any) -> JobSpec:
    made = JobSpec(job_id, api_name, "api-1", 2, 3, "", None, None, None, 1_790_000_000_000_000_000, "00-ab-cd-01")
    return dataclasses.replace(made, **changes)


def outcome(index: int, *, succeeded: bool = True, error: str = "") -> Outcome:
    return Outcome(
        index,
        BatchState.SUCCEEDED if succeeded else BatchState.FAILED,
        1,
        200 if succeeded else 500,
        error,
        1_790_000_000_000_000_001,
    )


RUNNING = JobState(JobStatus.RUNNING)


async def add(ledger: Ledger, job: JobSpec, state: JobState = RUNNING, stream: bytes = b"1,2,3,") -> None:
    await ledger.add_job(job, state, [stream], [Segment(0, 0, array("I", [len(stream)]))], Cursor(1, len(stream)))


async def read(ledger: Ledger, job_id: str, start: int, end: int) -> bytes:
    """A range of an item stream that is stored."""
    pieces = [placed.piece for placed in await ledger.read_input(job_id, start, end)]
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


# The ledger itself


async def test_the_generation_grows_by_one_with_each_opening_and_the_secret_stays(store: Store) -> None:
    seen = []
    for _ in range(3):
        async with store.opened() as ledger:
            seen.append((ledger.generation, ledger.secret))
    assert [generation for generation, _ in seen] == [1, 2, 3]
    assert len({secret for _, secret in seen}) == 1
    assert len(seen[0][1]) == 32


async def test_close_finishes_what_was_asked_for_and_may_be_repeated(store: Store) -> None:
    async with store.opened() as ledger:
        writes = [asyncio.ensure_future(add(ledger, spec(f"{number:016x}"))) for number in range(20)]
        await asyncio.sleep(0)  # every write has been asked for; none can have been answered
        await ledger.close()
        await asyncio.gather(*writes)
    async with store.opened() as ledger:
        assert len(await ledger.jobs()) == 20


async def test_a_closed_ledger_takes_nothing(ledger: Ledger) -> None:
    await ledger.close()
    with pytest.raises(CortexError, match="closed"):
        await ledger.delete_api("digits")


# APIs


async def test_the_version_in_force_is_the_last_one_put(ledger: Ledger) -> None:
    await ledger.put_apis([api("digits", "1", 10), api("words", "7", 10)])
    await ledger.put_apis([api("digits", "2", 20)])
    assert await ledger.api("digits") == api("digits", "2", 20)
    assert await ledger.apis() == [api("digits", "2", 20), api("words", "7", 10)]


async def test_earlier_versions_stay_known_newest_first(ledger: Ledger) -> None:
    for number in range(120):
        await ledger.put_apis([api("digits", str(number), number)])
    await ledger.put_apis([api("digits-2", "x", 500)])
    versions = await ledger.api_versions("digits")
    assert [version.deployed_ns for version in versions] == list(range(119, 19, -1))
    assert await ledger.api("digits", "5") == api("digits", "5", 5)


async def test_a_version_that_is_put_again_is_in_force_again(ledger: Ledger) -> None:
    for api_id, deployed_ns in (("1", 1), ("2", 2), ("1", 3)):
        await ledger.put_apis([api("digits", api_id, deployed_ns)])
    assert await ledger.api("digits") == api("digits", "1", 3)
    assert [version.api_id for version in await ledger.api_versions("digits")] == ["1", "2"]


async def test_a_deleted_api_is_out_of_force_but_known_with_its_jobs(ledger: Ledger) -> None:
    await ledger.put_apis([api("digits"), api("words")])
    await add(ledger, spec())
    await ledger.delete_api("digits")
    assert await ledger.api("digits") is None
    assert await ledger.apis() == [api("words")]
    assert await ledger.api("digits", "1") == api("digits")
    assert len(await ledger.jobs("digits")) == 1


async def test_what_is_unknown_is_none_or_empty(ledger: Ledger) -> None:
    assert await ledger.api("digits") is None
    assert await ledger.api("digits", "1") is None
    assert await ledger.api_versions("digits") == []
    assert await ledger.job("6000000000000000") is None
    assert await ledger.segments("6000000000000000", 0, 10) == []
    assert await read(ledger, "6000000000000000", 0, 10) == b""
    assert await ledger.next_piece("6000000000000000", 0) == b""
    assert await ledger.workers() == []


async def test_versions_are_put_all_or_none(ledger: Ledger) -> None:
    broken = dataclasses.replace(api("words"), deployed_ns=2**80)
    with pytest.raises((OverflowError, CortexError)):
        await ledger.put_apis([api("digits"), broken])
    assert await ledger.apis() == []


# Jobs


async def test_a_job_comes_back_as_it_was_given(store: Store) -> None:
    full = spec(
        config_json='{"big": 12345678901234567890, "é": "\\ud800"}',
        timeout_seconds=60,
        batch_timeout_seconds=5,
        dead_letter_queue=DeadLetterQueue("arn:aws:sqs:us-west-2:123456789012:q", 3),
    )
    state = JobState(JobStatus.TIMED_OUT, "too “late”", Completion(0, "no answer"), 1_790_000_000_000_000_009)
    plain = spec("6000000000000001")
    async with store.opened() as ledger:
        await ledger.add_job(full, state, [], [], Cursor(0, 0, done=True))
        await ledger.add_job(plain, JobState(), [], [], Cursor())
    async with store.opened() as ledger:
        assert await ledger.job(full.job_id) == JobRecord(full, state, Tally(), Cursor(0, 0, done=True), 0)
        assert await ledger.job(plain.job_id) == JobRecord(plain, JobState(), Tally(), Cursor(), 0)


async def test_a_request_that_is_sent_again_finds_its_job_also_after_a_restart(store: Store) -> None:
    first, again, elsewhere = spec("6000000000000002"), spec("6000000000000001"), spec("6000000000000000", "other")
    request = RequestKey("once-7", b"digest")

    async def accept(ledger: Ledger, job: JobSpec, key: RequestKey | None) -> str:
        return await ledger.add_job(job, RUNNING, [b"1,"], [Segment(0, 0, array("I", [2]))], Cursor(1, 2), key)

    async with store.opened() as ledger:
        assert await ledger.requested(first.api_name, request) is None
        assert await accept(ledger, first, request) == first.job_id
        assert await ledger.requested(first.api_name, request) == first.job_id
        assert await ledger.requested("other", request) is None
    async with store.opened() as ledger:
        assert await accept(ledger, again, request) == first.job_id
        assert await ledger.job(again.job_id) is None
        with pytest.raises(CortexError) as raised:
            await accept(ledger, again, RequestKey("once-7", b"another"))
        assert raised.value.kind == "job.idempotency_key_reused"
        assert await ledger.job(again.job_id) is None
        assert await accept(ledger, elsewhere, request) == elsewhere.job_id
        assert await accept(ledger, again, None) == again.job_id


async def test_a_job_is_added_once(ledger: Ledger) -> None:
    await add(ledger, spec(), stream=b"1,")
    with pytest.raises(CortexError) as raised:
        await add(ledger, spec(workers=99), stream=b"2,")
    assert raised.value.kind == "ledger.failed"
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.spec.workers == 2
    assert await read(ledger, spec().job_id, 0, 100) == b"1,"


async def test_the_state_is_the_last_one_set(ledger: Ledger) -> None:
    await add(ledger, spec(), JobState(JobStatus.ENQUEUING))
    final = JobState(JobStatus.SUCCEEDED, "", Completion(200, ""), 5)
    await ledger.set_state(spec().job_id, RUNNING)
    await ledger.set_state(spec().job_id, final)
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.state == final


async def test_jobs_are_listed_newest_first_in_pages(ledger: Ledger) -> None:
    ids = [f"{number:016x}" for number in range(25)]
    for job_id in reversed(ids):
        await add(ledger, spec(job_id, "even" if int(job_id, 16) % 2 == 0 else "odd"))
    for job_id in ids[:20]:
        await ledger.set_state(job_id, JobState(JobStatus.STOPPED))

    async def listed(*arguments: Any, **options: Any) -> list[str]:
        return [job.spec.job_id for job in await ledger.jobs(*arguments, **options)]

    assert await listed() == ids
    assert await listed(limit=10) == ids[:10]
    assert await listed(limit=10, after=ids[9]) == ids[10:20]
    assert await listed("odd", limit=3, after=ids[3]) == [ids[5], ids[7], ids[9]]
    assert await listed(running_only=True) == ids[20:]
    assert await listed("even", running_only=True, after=ids[20]) == [ids[22], ids[24]]
    assert await listed(after=ids[-1]) == []


@pytest.mark.parametrize("status", JobStatus)
async def test_a_job_runs_until_its_status_is_final(ledger: Ledger, status: JobStatus) -> None:
    await add(ledger, spec(), JobState(status))
    assert bool(await ledger.jobs(running_only=True)) is not status.final


async def test_nothing_can_be_said_of_a_job_that_was_not_added(ledger: Ledger) -> None:
    for write in (
        ledger.set_state("6000000000000000", RUNNING),
        ledger.add_segments("6000000000000000", [], Cursor()),
        ledger.record("6000000000000000", [outcome(0)], {}, Tally(), 0),
    ):
        with pytest.raises(CortexError, match="6000000000000000"):
            await write


# Input and segments


async def test_ranges_of_the_input_run_over_pieces(ledger: Ledger) -> None:
    pieces = [bytes([65 + number]) * (number * 50_000 + 1) for number in range(8)]
    stream = b"".join(pieces)
    await add(ledger, spec("6000000000000001"), stream=b"another job,")
    await ledger.add_job(spec(), RUNNING, iter([*pieces[:3], b"", *pieces[3:]]), [], Cursor())
    edges = [0, 1, 2, 50_001, 50_002, 50_003, 700_000, len(stream) - 1, len(stream)]
    for start in edges:
        for end in edges:
            assert await read(ledger, spec().job_id, start, end) == stream[start:end]
    assert await read(ledger, spec().job_id, 0, 10 * len(stream)) == stream
    assert await read(ledger, spec().job_id, len(stream), len(stream) + 5) == b""


async def test_the_input_can_be_followed_piece_by_piece_from_anywhere(ledger: Ledger) -> None:
    pieces = [b"1,2,3,", b"4,", b"5,6,"]
    await ledger.add_job(spec(), RUNNING, pieces, [], Cursor())
    assert await ledger.next_piece(spec().job_id, 0) == b"1,2,3,"
    assert await ledger.next_piece(spec().job_id, 2) == b"2,3,"
    assert await ledger.next_piece(spec().job_id, 6) == b"4,"
    assert await ledger.next_piece(spec().job_id, 10) == b"6,"
    assert await ledger.next_piece(spec().job_id, 12) == b""


async def test_an_input_may_refer_to_objects(store: Store) -> None:
    a, b = StoredObject("s3://b/a", 100, "e1"), StoredObject("file:///b", 30, "e2")
    first: list[Piece] = [b"1,", Reference(a, 0, 40, 7), Reference(a, 40, 60, 8)]
    more: list[Piece] = [Reference(a, 100, 5, 9), b"", b"2,3,", Reference(b, 0, 31, 2**32 - 1)]
    async with store.opened() as ledger:
        await ledger.add_job(spec(), RUNNING, first, [], Cursor())
        await ledger.add_segments(spec().job_id, [], Cursor(position="p"), more)
    async with store.opened() as ledger:
        placed = [
            PlacedPiece(0, b"1,"),
            PlacedPiece(2, Reference(a, 0, 40, 7)),
            PlacedPiece(42, Reference(a, 40, 60, 8)),
            PlacedPiece(102, Reference(a, 100, 5, 9)),
            PlacedPiece(107, b"2,3,"),
            PlacedPiece(111, Reference(b, 0, 31, 2**32 - 1)),
        ]
        assert await ledger.read_input(spec().job_id, 0, 1000) == placed
        assert await ledger.read_input(spec().job_id, 41, 43) == placed[1:3], "references are told whole"
        assert await ledger.read_input(spec().job_id, 104, 109) == [placed[3], PlacedPiece(107, b"2,")]
        assert await ledger.read_input(spec().job_id, 109, 112) == [PlacedPiece(109, b"3,"), placed[5]]
        assert await ledger.read_input(spec().job_id, 142, 150) == []
        assert await ledger.references(spec().job_id, 2, 2) == placed[1:3]
        assert await ledger.references(spec().job_id, 43, 10) == [placed[3], placed[5]]


async def test_items_of_batches_can_be_kept(ledger: Ledger) -> None:
    await add(ledger, spec())
    await ledger.keep_items(spec().job_id, {3: b"1,", 5: b"2,"})
    await ledger.keep_items(spec().job_id, {5: b"other,", 7: b"3,"})
    assert await ledger.kept_items(spec().job_id, [3, 4, 5]) == {3: b"1,", 5: b"2,"}
    assert await ledger.kept_items("6000000000000001", [3]) == {}


async def test_a_request_that_is_not_complete_keeps_its_id_until_its_job_ends(ledger: Ledger) -> None:
    open_ = RequestKey("key", b"")
    await ledger.add_job(spec(), RUNNING, [], [], Cursor(), open_)
    with pytest.raises(CortexError) as error:
        await ledger.add_job(spec("6000000000000001"), RUNNING, [], [], Cursor(), open_)
    assert error.value.kind == "job.stream_in_progress"
    await ledger.set_state(spec().job_id, JobState(JobStatus.ENQUEUE_FAILED))
    assert await ledger.requested(spec().api_name, open_) is None
    second = spec("6000000000000002")
    assert await ledger.add_job(second, RUNNING, [], [], Cursor(), open_) == second.job_id
    await ledger.add_segments(second.job_id, [], Cursor(done=True), [], b"digest")
    assert await ledger.request(spec().api_name, "key") == (second.job_id, RequestKey("key", b"digest"))
    assert await ledger.requested(spec().api_name, RequestKey("key", b"digest")) == second.job_id
    with pytest.raises(CortexError) as error:
        await ledger.add_job(spec("6000000000000003"), RUNNING, [], [], Cursor(), RequestKey("key", b"other"))
    assert error.value.kind == "job.idempotency_key_reused"
    assert await ledger.request(spec().api_name, "other") is None


async def test_segments_are_found_by_any_batch_in_them(ledger: Ledger) -> None:
    segments = [Segment(first, first * 10, array("I", [10] * 4)) for first in range(0, 40, 4)]
    await ledger.add_job(spec(), RUNNING, [], segments[:2], Cursor(8, 80))
    await ledger.add_segments(spec().job_id, segments[2:], Cursor(40, 400, done=True))
    for index in range(40):
        assert await ledger.segments(spec().job_id, index, 2) == segments[index // 4 : index // 4 + 2]
    assert await ledger.segments(spec().job_id, 0, 100) == segments
    assert await ledger.segments(spec().job_id, 40, 10) == []
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.cursor == Cursor(40, 400, done=True)


# Outcomes


async def test_outcomes_histories_and_counts_are_recorded_together(store: Store) -> None:
    tally = Tally(1, 1, 3, 1, 2, 0.25, tuple(range(17)))
    async with store.opened() as ledger:
        await add(ledger, spec())
        failed = Outcome(2, BatchState.FAILED, 3, 503, "HTTP 503: “näh”", 9)
        await ledger.record(spec().job_id, [outcome(0), failed], {1: History(1, 2, 9)}, tally, 1)
    async with store.opened() as ledger:
        job = await ledger.job(spec().job_id)
        assert job is not None
        assert (job.tally, job.low_water) == (tally, 1)
        found = await ledger.open_batches(spec().job_id, 0)
        assert (found.holes, found.next_index, found.histories) == ([1], 3, {1: History(1, 2, 9)})
    assert store.outcomes(spec().job_id) == [
        (0, 1, 1, 200, "", 1_790_000_000_000_000_001),
        (2, 0, 3, 503, "HTTP 503: “näh”", 9),
    ]


async def test_halves_of_a_batch_get_the_next_indexes_with_its_outcome(ledger: Ledger) -> None:
    await ledger.add_job(spec(), RUNNING, [], [], Cursor())
    segment = Segment(0, 0, array("I", [8, 6]))
    assert await ledger.add_segments(spec().job_id, [segment], Cursor(2, 14), [b"1,2,3,4,", b"5,6,7,"]) == 2
    split = Outcome(0, BatchState.SPLIT, 1, 500, "no", 9)
    halves = [Halves(0, 0, (4, 4))]
    assert await ledger.record(spec().job_id, [split], {}, Tally(batches_split=1), 1, halves) == 4
    # Batches that are cut afterwards go on behind them, whatever index the cutter had in mind.
    later = [Segment(2, 14, array("I", [4, 4]))]
    assert (
        await ledger.add_segments(spec().job_id, later, Cursor(4, 22, done=True, position="x"), [b"10,", b"11,"]) == 6
    )
    found = await ledger.segments(spec().job_id, 0, 10)
    assert [(s.first_index, s.start, list(s.lengths)) for s in found] == [
        (0, 0, [8, 6]),
        (2, 0, [4, 4]),
        (4, 14, [4, 4]),
    ]
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.cursor == Cursor(6, 22, done=True, position="x")
    assert job.total_batches == 5


async def test_what_was_recorded_first_stands(ledger: Ledger, store: Store) -> None:
    await add(ledger, spec())
    await ledger.record(spec().job_id, [outcome(4)], {}, Tally(1), 0)
    again = [outcome(4, succeeded=False, error="late"), outcome(5), outcome(5, succeeded=False)]
    await ledger.record(spec().job_id, again, {}, Tally(2), 0)
    assert [row[:2] for row in store.outcomes(spec().job_id)] == [(4, 1), (5, 1)]


async def test_a_history_ends_with_its_batch(ledger: Ledger) -> None:
    await add(ledger, spec())
    await ledger.record(spec().job_id, [], {3: History(1, 0, 5), 4: History(0, 1, 6), 9: History(1, 1, 7)}, Tally(), 0)
    await ledger.record(spec().job_id, [outcome(3)], {4: History(2, 1, 8)}, Tally(), 0)
    await ledger.record(spec().job_id, [outcome(5)], {5: History(7, 7)}, Tally(), 0)
    assert (await ledger.open_batches(spec().job_id, 0)).histories == {4: History(2, 1, 8), 9: History(1, 1, 7)}
    await ledger.record(spec().job_id, [outcome(4)], {}, Tally(), 6)
    assert (await ledger.open_batches(spec().job_id, 6)).histories == {9: History(1, 1, 7)}


async def test_the_low_water_mark_never_falls(ledger: Ledger) -> None:
    await add(ledger, spec())
    await ledger.record(spec().job_id, [], {}, Tally(), 8)
    await ledger.record(spec().job_id, [], {}, Tally(), 5)
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.low_water == 8


async def test_open_batches_are_the_gaps_between_the_final_ones(ledger: Ledger) -> None:
    await add(ledger, spec("6000000000000001"))
    await ledger.record("6000000000000001", [outcome(index) for index in range(50_000)], {}, Tally(), 0)
    await add(ledger, spec())
    gaps = {0, 7, 4095, 4096, 4097, 8191, *range(9000, 9100), 19_998}
    finals = [outcome(index) for index in range(20_000) if index not in gaps]
    for first in range(0, len(finals), 3001):
        await ledger.record(spec().job_id, finals[first : first + 3001], {}, Tally(), 0)
    found = await ledger.open_batches(spec().job_id, 0)
    assert (found.holes, found.next_index) == (sorted(gaps), 20_000)
    found = await ledger.open_batches(spec().job_id, 4096)
    assert found.holes == sorted(gap for gap in gaps if gap >= 4096)


async def test_outcomes_are_found_by_range_and_by_how_they_ended(ledger: Ledger) -> None:
    await add(ledger, spec())
    await add(ledger, spec("6000000000000001"))
    await ledger.record("6000000000000001", [outcome(2, succeeded=False)], {}, Tally(), 0)
    assert await ledger.outcomes(spec().job_id) == []
    ends = {index: outcome(index, succeeded=index % 3 != 0, error="" if index % 3 else "no") for index in range(30)}
    await ledger.record(spec().job_id, [ends[index] for index in range(29, -1, -1) if index != 7], {}, Tally(), 0)
    del ends[7]

    async def found(*arguments: Any, **options: Any) -> list[int]:
        outcomes = await ledger.outcomes(spec().job_id, *arguments, **options)
        assert all(each == ends[each.index] for each in outcomes)
        return [each.index for each in outcomes]

    assert await found() == sorted(ends)
    assert await found(5, 10) == [5, 6, 8, 9]
    assert await found(state=BatchState.FAILED) == list(range(0, 30, 3))
    assert await found(state=BatchState.FAILED, limit=1) == [0]
    assert await found(4, state=BatchState.FAILED, limit=2) == [6, 9]
    assert await found(25, state=BatchState.SUCCEEDED) == [25, 26, 28, 29]
    assert await found(30) == []


async def test_histories_are_found_by_range(ledger: Ledger) -> None:
    await add(ledger, spec())
    await ledger.record(spec().job_id, [], {3: History(1, 0, 5), 4: History(0, 1, 6), 9: History(1, 1, 7)}, Tally(), 0)
    assert await ledger.histories(spec().job_id, 0, 100) == {
        3: History(1, 0, 5),
        4: History(0, 1, 6),
        9: History(1, 1, 7),
    }
    assert await ledger.histories(spec().job_id, 4, 9) == {4: History(0, 1, 6)}


async def test_a_job_and_its_retry_know_each_other(store: Store) -> None:
    old, retry, late = spec("6000000000000005"), spec("6000000000000004"), spec("6000000000000003")
    retry, late = (dataclasses.replace(each, retry_of=old.job_id) for each in (retry, late))
    async with store.opened() as ledger:
        await add(ledger, old)
        await add(ledger, retry)
        with pytest.raises(CortexError) as raised:
            await add(ledger, late)
        assert (raised.value.kind, raised.value.category) == ("job.already_retried", Category.CONFLICT)
        assert await ledger.job(late.job_id) is None, "both are written or neither"
    async with store.opened() as ledger:
        found = [await ledger.job(each.job_id) for each in (old, retry)]
        assert [job.retried_by for job in found if job] == [retry.job_id, ""]
        assert [job.spec for job in found if job] == [old, retry]
        await ledger.add_job(late, RUNNING, [], [], Cursor(), earlier_retry=retry.job_id)
        job = await ledger.job(old.job_id)
        assert job is not None
        assert job.retried_by == late.job_id


async def test_segments_may_bring_their_items(ledger: Ledger) -> None:
    await add(ledger, spec(), stream=b"1,2,3,")
    segment = Segment(1, 6, array("I", [3, 4]))
    await ledger.add_segments(spec().job_id, [segment], Cursor(3, 13, done=True), [b"44,", b"555,"])
    assert await read(ledger, spec().job_id, 0, 100) == b"1,2,3,44,555,"
    assert await ledger.segments(spec().job_id, 1, 1) == [segment]


async def test_a_job_without_outcomes_is_open_from_its_low_water_mark(ledger: Ledger) -> None:
    await add(ledger, spec())
    found = await ledger.open_batches(spec().job_id, 0)
    assert (found.holes, found.next_index, found.histories) == ([], 0, {})
    assert (await ledger.open_batches(spec().job_id, 17)).next_index == 17


# Many callers


async def test_a_write_that_fails_takes_none_of_its_neighbours_with_it(ledger: Ledger) -> None:
    await add(ledger, spec())
    writes = []
    for index in range(60):
        job_id = spec().job_id if index % 3 else "0000000000000000"  # every third is of a job that does not exist
        writes.append(ledger.record(job_id, [outcome(index)], {}, Tally(index), 0))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(result, CortexError) for result in results] == [index % 3 == 0 for index in range(60)]
    found = await ledger.open_batches(spec().job_id, 0)
    assert found.holes == list(range(0, 60, 3))


async def test_writes_take_effect_in_the_order_in_which_they_were_asked_for(ledger: Ledger) -> None:
    await add(ledger, spec())
    await asyncio.gather(*(ledger.record(spec().job_id, [], {}, Tally(count), 0) for count in range(200)))
    job = await ledger.job(spec().job_id)
    assert job is not None
    assert job.tally == Tally(199)


async def test_a_cancelled_caller_disturbs_nobody(ledger: Ledger) -> None:
    await add(ledger, spec())
    writes = [
        asyncio.ensure_future(ledger.record(spec().job_id, [outcome(index)], {}, Tally(), 0)) for index in range(10)
    ]
    await asyncio.sleep(0)  # every write has been asked for
    writes[4].cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [result for result in results if isinstance(result, BaseException)] == [results[4]]
    assert (await ledger.open_batches(spec().job_id, 0)).next_index == 10


# Workers


async def test_a_worker_is_known_from_before_its_start_until_it_is_removed(store: Store) -> None:
    planned = WorkerRecord("w1", "6000000000000000", 1, None, None)
    started = dataclasses.replace(planned, pid=4711, started=12345.25, detail='{"net": 1}')
    other = WorkerRecord("w0", "6000000000000001", 0, 1, 2.0)
    async with store.opened() as ledger:
        await ledger.put_worker(planned)
        assert await ledger.workers() == [planned]
        await ledger.put_worker(started)
        await ledger.put_worker(other)
    async with store.opened() as ledger:
        assert await ledger.workers() == [started, other]
        assert await ledger.workers("6000000000000001") == [other]
        await ledger.remove_worker("w1")
        await ledger.remove_worker("w1")
        assert await ledger.workers() == [other]


async def test_errors_have_the_kinds_that_the_port_names(ledger: Ledger) -> None:
    with pytest.raises(CortexError) as raised:
        await ledger.set_state("unknown", RUNNING)
    assert (raised.value.kind, raised.value.category) == ("ledger.failed", Category.INTERNAL)


# Replies


async def test_a_reply_is_kept_with_its_outcome_and_the_first_one_stands(ledger: Ledger) -> None:
    await add(ledger, spec())
    first = dataclasses.replace(outcome(3), reply=b"first")
    await ledger.record(spec().job_id, [first, outcome(4)], {}, Tally(), 0)
    await ledger.record(spec().job_id, [dataclasses.replace(first, reply=b"second")], {}, Tally(), 0)
    assert await ledger.replies(spec().job_id, 0, None, 100) == [first]


async def test_a_reply_that_comes_too_late_for_a_failed_batch_is_no_reply(ledger: Ledger) -> None:
    await add(ledger, spec())
    await ledger.record(spec().job_id, [outcome(3, succeeded=False)], {}, Tally(), 0)
    await ledger.record(spec().job_id, [dataclasses.replace(outcome(3), reply=b"late")], {}, Tally(), 0)
    assert await ledger.replies(spec().job_id, 0, None, 100) == []


async def test_replies_are_read_in_order_within_a_range_and_as_many_as_are_asked_for(ledger: Ledger) -> None:
    await add(ledger, spec())
    sizes = [0, 3, 2_000_000, 5, 5, 1_000_000, 1]
    outcomes = [dataclasses.replace(outcome(i), reply=bytes([i]) * size) for i, size in enumerate(sizes)]
    await ledger.record(spec().job_id, outcomes, {}, Tally(), len(sizes))
    read: list[list[Outcome]] = []
    while found := await ledger.replies(spec().job_id, sum(map(len, read)), None, 10):
        read.append(found)
    assert [[len(entry.reply or b"") for entry in found] for found in read] == [
        [0, 3],
        [2_000_000],
        [5, 5],
        [1_000_000],
        [1],
    ]
    assert [entry for found in read for entry in found] == outcomes
    assert [entry.index for entry in await ledger.replies(spec().job_id, 1, 3, 10**7)] == [1, 2]


async def test_thousands_of_small_replies_are_written_together_and_read_in_parts(ledger: Ledger) -> None:
    await add(ledger, spec())
    outcomes = [dataclasses.replace(outcome(i), reply=b"%d" % i) for i in range(3000)]
    await ledger.record(spec().job_id, outcomes, {}, Tally(), 3000)
    read: list[Outcome] = []
    while found := await ledger.replies(spec().job_id, len(read), None, 10**6):
        assert len(found) <= 1000
        read += found
    assert read == outcomes
