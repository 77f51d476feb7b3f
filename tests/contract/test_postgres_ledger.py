"""What can happen to a ledger because it is on a server: rivals, lost answers, crashes, full disks, wrong databases."""

import asyncio
import random
import threading
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger import migrations
from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.postgresql import session
from services.scheduler.adapters.ledger.postgresql.engine import PostgresEngine
from services.scheduler.adapters.ledger.postgresql.writing import PostgresWriting
from services.scheduler.domain.model.batch import BatchState, Cursor, Outcome, Segment
from services.scheduler.domain.model.job import JobSpec, JobState, JobStatus, Tally
from tests.contract.commit_proxy import commit_proxy
from tests.integration.postgres_kit import PASSWORD, QUOTED_PASSWORD, Postgres, postgres_server

SPEC = JobSpec("6000000000000000", "digits", "1", 1, 1, "", None, None, None, 1, "")
RUNNING = JobState(JobStatus.RUNNING)


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that may be killed."""
    with postgres_server() as started:
        yield started


@asynccontextmanager
async def opened(url: str, *, take_over: bool = False) -> AsyncIterator[SqlLedger]:
    ledger = await SqlLedger.open(PostgresEngine(url, take_over=take_over))
    try:
        yield ledger
    finally:
        await ledger.close()


async def add(ledger: SqlLedger) -> None:
    await ledger.add_job(SPEC, RUNNING, [], [], Cursor())


def outcome(index: int) -> Outcome:
    return Outcome(index, BatchState.SUCCEEDED, 1, 200, "", 1)


async def refused(opening: Callable[[], Awaitable[object]]) -> CortexError:
    with pytest.raises(CortexError) as raised:
        await opening()
    assert PASSWORD not in raised.value.message
    assert QUOTED_PASSWORD not in raised.value.message
    return raised.value


# One writer


async def test_a_deposed_ledger_writes_nothing_and_says_so(postgres: Postgres, database: str) -> None:
    told: list[str] = []
    engine = PostgresEngine(postgres.url(database))
    older = await SqlLedger.open(engine, on_deposed=told.append)
    await add(older)
    async with opened(postgres.url(database), take_over=True) as newer:
        assert (older.generation, newer.generation) == (1, 2)
        error = await refused(lambda: older.set_state(SPEC.job_id, JobState(JobStatus.STOPPED)))
        assert (error.kind, error.category) == ("ledger.deposed", Category.UNAVAILABLE)
        assert told == [error.message]
        job = await newer.job(SPEC.job_id)
        assert job is not None
        assert job.state == RUNNING
        await newer.set_state(SPEC.job_id, JobState(JobStatus.ENQUEUING))
        await refused(lambda: older.set_state(SPEC.job_id, JobState(JobStatus.STOPPED)))
    await older.close()


async def test_a_transaction_that_was_begun_before_cannot_be_committed(postgres: Postgres, database: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def operation(connection: Connection) -> None:
        connection.execute("DELETE FROM jobs WHERE job_id = ? ", (SPEC.job_id,))
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        begun.set()
        go_on.wait()

    async with opened(postgres.url(database)) as older:
        await add(older)
        deleting = older._writer.submit(operation)
        await asyncio.to_thread(begun.wait)
        async with opened(postgres.url(database), take_over=True) as newer:
            go_on.set()
            with pytest.raises(CortexError) as raised:
                await deleting
            assert raised.value.kind == "ledger.deposed"
            assert await newer.job(SPEC.job_id) is not None


async def test_a_ledger_that_has_nothing_to_write_notices_too_that_it_is_deposed(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresWriting, "check_seconds", 0.02)
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: str) -> None:
        loop.call_soon_threadsafe(told.set)

    older = await SqlLedger.open(PostgresEngine(postgres.url(database)), on_deposed=tell)
    async with opened(postgres.url(database), take_over=True), asyncio.timeout(10):
        await told.wait()
    await older.close()


async def test_without_an_election_the_first_one_stays(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WAIT_SECONDS", 0.1)
    async with opened(postgres.url(database)) as first:
        error = await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url(database))))
        assert (error.kind, error.category) == ("ledger.in_use", Category.CONFLICT)
        assert "cortex-scheduler" in error.message
        await add(first)
    async with opened(postgres.url(database)) as again:
        assert again.generation == 2
        assert await again.job(SPEC.job_id) is not None


async def test_of_several_that_start_at_once_one_can_write(postgres: Postgres, database: str) -> None:
    engine = PostgresEngine(postgres.url(database), take_over=True)
    results = await asyncio.gather(*(SqlLedger.open(engine) for _ in range(4)), return_exceptions=True)
    ledgers = [result for result in results if isinstance(result, SqlLedger)]
    for result in results:
        assert isinstance(result, SqlLedger) or (isinstance(result, CortexError) and "ledger." in result.kind)
    generations = [ledger.generation for ledger in ledgers]
    assert len(set(generations)) == len(generations) > 0
    for ledger in sorted(ledgers, key=lambda ledger: ledger.generation):
        if ledger.generation == max(generations):
            await add(ledger)
        else:
            assert (await refused(lambda ledger=ledger: add(ledger))).kind == "ledger.deposed"  # type: ignore[misc]  # no lambda has types
    for ledger in ledgers:
        await ledger.close()


# The tables


async def test_an_end_in_the_middle_of_making_the_tables_leaves_nothing(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = migrations.migrations()
    with monkeypatch.context() as patch:
        broken = text + "SELECT pg_terminate_backend(pg_backend_pid());"
        patch.setattr(migrations, "migrations", lambda: (broken,))
        error = await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url(database))))
        assert error.kind == "ledger.unavailable"
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == [(0,)]
    async with opened(postgres.url(database)) as ledger:
        assert ledger.generation == 1
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "migrations", lambda: (text, "CREATE TABLE more (x TEXT);\nSELECT 1 / 0;"))
        await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url(database))))
        patch.setattr(migrations, "migrations", lambda: (text, "CREATE TABLE more (x TEXT);"))
        async with opened(postgres.url(database)) as ledger:
            assert ledger.generation == 2
    assert postgres.execute("SELECT version FROM ledger", database) == [(2,)]
    error = await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url(database))))
    assert (error.kind, error.category) == ("ledger.version_not_supported", Category.UNSUPPORTED)
    assert "newer release" in error.message


async def test_a_database_that_cannot_hold_a_ledger_is_refused(postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 OWNER cortex")
    assert "LATIN1" in (await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url("latin"))))).message
    postgres.execute("CREATE DATABASE others")
    assert "own the database" in (await refused(lambda: SqlLedger.open(PostgresEngine(postgres.url("others"))))).message
    error = await refused(lambda: SqlLedger.open(PostgresEngine(postgres.tcp_url("nowhere"))))
    assert 'database "nowhere" does not exist): make it' in error.message
    wrong = postgres.tcp_url(database).replace(QUOTED_PASSWORD, "other")
    message = (await refused(lambda: SqlLedger.open(PostgresEngine(wrong)))).message
    assert 'password authentication failed for user "cortex"): mend the user or the password' in message
    none = postgres.tcp_url(database).replace(f":{QUOTED_PASSWORD}", "")
    assert "no password supplied): give one" in (await refused(lambda: SqlLedger.open(PostgresEngine(none)))).message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://cortex:se%zzcret@h/d",
        "postgresql://cortex:secret@h/d?nonsense=1",
        "postgresql://cortex:a@secret@h/d",
        "postgresql://cortex:a@secret:b@h:5432/d",
        "postgresql://cortex:a/secret@h/d",
    ],
)
def test_a_url_that_cannot_be_understood_is_not_repeated(url: str) -> None:
    with pytest.raises(CortexError) as raised:
        PostgresEngine(url)
    assert "cret" not in str(raised.value)
    assert raised.value.__cause__ is None


# Breaks


@pytest.mark.parametrize("seed", range(3))
async def test_a_lost_answer_to_a_commit_is_found_out(postgres: Postgres, database: str, seed: int) -> None:
    chance = random.Random(seed)
    written: list[int] = []

    async def write(ledger: SqlLedger) -> None:
        for _ in range(25):
            try:
                written.append(await ledger.add_segments(SPEC.job_id, [Segment(0, 0, array("I", [2]))], Cursor(1, 2)))
            except CortexError as error:  # broke twice in a row: then nothing was changed
                if error.kind != "ledger.unavailable":
                    raise

    async with (
        commit_proxy(postgres.port, chance, 0.0) as proxy,
        opened(postgres.tcp_url(database, proxy.port)) as ledger,
    ):
        await add(ledger)
        proxy.often = 0.3
        await asyncio.gather(*(write(ledger) for _ in range(3)))
        proxy.often = 0.0
        assert all(proxy.lost.values())
        assert sorted(written) == list(range(1, len(written) + 1))
        assert len(written) > 40
        job = await ledger.job(SPEC.job_id)
        assert job is not None
        assert job.cursor.next_index == len(written)
        assert len(await ledger.segments(SPEC.job_id, 0, 1000)) == len(written)
        assert ledger.generation == 1


async def test_writes_go_on_when_a_server_that_was_killed_is_back(server: Postgres) -> None:
    """In the middle of writes, several times: what was acknowledged is there, exactly once, and nothing else."""
    recorded: set[int] = set()
    enough = asyncio.Semaphore(0)
    indexes = iter(range(10**9))

    async def write(ledger: SqlLedger) -> None:
        while True:
            index = next(indexes)
            while True:
                try:
                    await ledger.record(SPEC.job_id, [outcome(index)], {}, Tally(), 0)
                except CortexError as error:
                    if error.kind != "ledger.unavailable":
                        raise
                    await asyncio.sleep(0.01)
                else:
                    break
            recorded.add(index)
            enough.release()

    async with opened(server.url(server.database())) as ledger:
        await add(ledger)
        writers = [asyncio.create_task(write(ledger)) for _ in range(5)]
        for _ in range(3):
            for _ in range(200):
                await enough.acquire()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        for _ in range(200):
            await enough.acquire()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        found = {each.index for each in await ledger.outcomes(SPEC.job_id, limit=10**6)}
        assert recorded <= found
        assert len(found - recorded) <= len(writers)  # cancelled while they waited for the answer


async def test_while_the_server_is_away_callers_are_told_at_once(server: Postgres) -> None:
    async with opened(server.url(server.database())) as ledger:
        await add(ledger)
        server.kill()
        writing = partial(ledger.record, SPEC.job_id, [outcome(0)], {}, Tally(), 0)
        for asking in (writing, partial(ledger.job, SPEC.job_id)):
            error = await refused(asking)
            assert (error.kind, error.category) == ("ledger.unavailable", Category.UNAVAILABLE)
        server.start()
        await writing()
        assert await ledger.outcomes(SPEC.job_id) == [outcome(0)]


async def test_while_a_commit_is_being_found_out_others_are_told_and_close_does_not_hang(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await SqlLedger.open(PostgresEngine(server.url(server.database())))
    await add(ledger)
    asked, execute = threading.Event(), psycopg.Connection.execute

    def killing(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        if query == b"COMMIT" and not asked.is_set():
            server.kill()
            asked.set()
        return execute(connection, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", killing)
    unknown = asyncio.ensure_future(ledger.record(SPEC.job_id, [outcome(0)], {}, Tally(), 0))
    await asyncio.to_thread(asked.wait)
    for _ in range(3):
        error = await refused(partial(ledger.record, SPEC.job_id, [outcome(1)], {}, Tally(), 0))
        assert error.kind == "ledger.unavailable"
        assert not unknown.done()
    closing = asyncio.create_task(ledger.close())
    with pytest.raises(CortexError, match="cannot be reached"):
        await unknown
    await closing


# A full disk


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(postgres: Postgres, database: str) -> None:
    async with opened(postgres.url(database)) as ledger:
        await add(ledger)
        postgres.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON input EXECUTE FUNCTION refuse()",
            database,
        )
        results = await asyncio.gather(
            ledger.record(SPEC.job_id, [outcome(0)], {}, Tally(1), 1),
            ledger.add_segments(SPEC.job_id, [], Cursor(), [b"1,"]),
            ledger.set_state(SPEC.job_id, JobState(JobStatus.STOPPED)),
            return_exceptions=True,
        )
        error = results[1]
        assert isinstance(error, CortexError)
        assert (error.kind, error.category) == ("ledger.storage_full", Category.STORAGE_FULL)
        assert [results[0], results[2]] == [0, None]
        job = await ledger.job(SPEC.job_id)
        assert job is not None
        assert (job.state.status, job.tally.batches_succeeded) == (JobStatus.STOPPED, 1)


# Values


async def test_a_text_may_hold_what_postgresql_cannot(postgres: Postgres, database: str) -> None:
    async with opened(postgres.url(database)) as ledger:
        await add(ledger)
        answered = Outcome(0, BatchState.FAILED, 1, 500, "HTTP 500: \0\x01", 1)
        await ledger.record(SPEC.job_id, [answered], {}, Tally(), 1)
        (found,) = await ledger.outcomes(SPEC.job_id)
        assert found.error == "HTTP 500: ␀\x01"
