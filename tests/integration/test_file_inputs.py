"""Jobs whose items are in files, over the scheduler's real wire and its real ledger; the workers are scripted."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from tests.integration.directory_store import DirectoryStore
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    root = tmp_path / "inputs"
    root.mkdir()
    return DirectoryStore(root)


def ask(kind: str, store: DirectoryStore, batch_size: int, **fields: list[str]) -> pb.SubmitJobRequest:
    request = pb.SubmitJobRequest(api_name="hello", workers=1)
    selection = getattr(request, kind)
    selection.s3_paths.extend(fields.pop("s3_paths", [store.uri]))
    selection.batch_size = batch_size
    for name, globs in fields.items():
        getattr(selection, name).extend(globs)
    return request


async def work(kit: Kit, request: pb.SubmitJobRequest) -> tuple[Job, dict[int, bytes]]:
    """Submit a job and do all of it."""
    job_id = (await kit.batch.SubmitJob(request)).job.job_id
    worker = await kit.worker()
    await worker.open(credit=64)
    seen: dict[int, bytes] = {}
    await worker.work_off(seen)
    await worker.answer_completion()
    return await kit.until(job_id, lambda job: job.HasField("end_time")), seen


def stored_bytes(directory: Path) -> int:
    """Bytes of input that were copied."""
    with closing(sqlite3.connect(directory / "ledger.db")) as connection:
        return int(connection.execute("SELECT coalesce(sum(length(bytes)), 0) FROM input").fetchone()[0])


async def test_the_values_of_files_become_items_and_batches_run_on_from_file_to_file(
    tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore
) -> None:
    lines = [json.dumps({"number": number, "text": "x" * (number % 300)}) for number in range(9_000)]
    (store.root / "a.jsonl").write_text("".join(f"{line}\n" for line in lines[:7_000]))
    (store.root / "b.jsonl").write_text("\n".join(lines[7_000:]))  # no line feed at its end
    async with scheduler(tmp_path, driver, objects=store) as kit:
        await kit.deploy()
        job, seen = await work(kit, ask("delimited_files", store, 64))
    assert job.status == Job.STATUS_SUCCEEDED
    assert b"".join(seen[index][1:-1] + b"," for index in sorted(seen)) == b"".join(
        f"{line},".encode() for line in lines
    )
    assert [payload.count(b'"number"') for _, payload in sorted(seen.items())] == [64] * 140 + [40]
    assert stored_bytes(tmp_path) < 64 * 1024, "the files' ends"
    assert len(store.reads) < len(seen) / 10, "never a request for each batch"


async def test_the_paths_of_files_become_items(tmp_path: Path, driver: ScriptedDriver, store: DirectoryStore) -> None:
    names = [f"{number:03}.png" for number in range(250)]
    for name in (*names, "notes.txt", 'b/é "x".png'):
        (store.root / name).parent.mkdir(exist_ok=True)
        (store.root / name).touch()
    async with scheduler(tmp_path, driver, objects=store) as kit:
        await kit.deploy()
        request = ask("file_path_lister", store, 3, includes=[f"{store.uri}**.png"], excludes=[f"{store.uri}00?.png"])
        job, seen = await work(kit, request)
    assert job.status == Job.STATUS_SUCCEEDED
    items = [item for _, payload in sorted(seen.items()) for item in json.loads(payload)]
    assert items == [f"{store.uri}{name}" for name in (*names[10:], 'b/é "x".png')]
