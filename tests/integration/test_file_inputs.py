"""Jobs whose items are in files, over the scheduler's real wire and its real ledger; the workers are scripted."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Batch
from services.common.grpc_errors import from_rpc_error
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases import patience
from services.scheduler.usecases.submitting import needs
from tests.integration.file_jobs import ask, finish, over, split, stored_bytes, stream, submit, values, work
from tests.integration.observed_store import Directory
from tests.integration.scheduler_kit import Job, ScriptedDriver, scheduler


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
def files(tmp_path: Path) -> Directory:
    root = tmp_path / "inputs"
    root.mkdir()
    return Directory(root)


async def test_values_become_items_and_batches_run_on_from_file_to_file(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    items = values(9_000, seed=1)
    files.write_file("a.jsonl", b"".join(item + b"\n" for item in items[:7_000]))
    files.write_file("b.jsonl", b"\n".join(items[7_000:]))  # no line feed at its end
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job, seen = await work(kit, ask("delimited_files", files.uri, 64))
    assert job.status == Job.STATUS_SUCCEEDED
    assert stream(seen) == b"".join(item + b"," for item in items)
    assert [payload.count(b'"n"') for _, payload in sorted(seen.items())] == [64] * 140 + [40]
    assert stored_bytes(tmp_path) < 64 * 1024, "the files' ends"
    assert len(files.reads) < len(seen) / 4, "never a request for each batch"


async def test_files_of_every_kind_are_read_as_they_are_meant(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    plain = b"".join(item + b"\n" for item in values(1_000, seed=2))
    items = plain.replace(b"\n", b",")
    files.write_file("1.gz", gzip.compress(plain[:50_000]) + gzip.compress(plain[50_000:]) + b"\0" * 100)
    files.write_file("2-empty", b"")
    files.write_file("3-empty.gz", gzip.compress(b""))
    files.write_file("4-crlf", plain.replace(b"\n", b"\r\n"))
    files.write_file("5-many-lines", b'\xef\xbb\xbf\n\n {"a":\n 1.0}\n[1,\r\n2] 12345678901234567890\n\n"x"')
    files.write_file("6-blank", b"\n \n")
    files.write_file("7/plain", plain)
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job, seen = await work(kit, ask("delimited_files", files.uri, 7))
    assert job.status == Job.STATUS_SUCCEEDED
    assert stream(seen) == items + items + b'{"a":\n 1.0},[1,\r\n2],12345678901234567890,"x",' + items
    assert {len(json.loads(payload)) for index, payload in seen.items() if index < len(seen) - 1} == {7}


async def test_paths_become_items(tmp_path: Path, driver: ScriptedDriver, files: Directory) -> None:
    names = [f"{number:04}.png" for number in range(2_500)]
    for name in (*names, "notes.txt", 'b/é "x\\".png'):
        files.write_file(name, b"")
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        paths = [f"{files.uri}0", f"{files.uri}b/", f"{files.uri}b"]
        globs = {"includes": [f"{files.uri}**.png"], "excludes": [f"{files.uri}000?.png"]}
        job, seen = await work(kit, ask("file_path_lister", "", 3, s3_paths=paths, **globs))
    assert job.status == Job.STATUS_SUCCEEDED
    items = [item for _, payload in sorted(seen.items()) for item in json.loads(payload)]
    chosen = [name for name in names if name.startswith("0")][10:] + ['b/é "x\\".png'] * 2
    assert items == [f"{files.uri}{name}" for name in chosen], "in the paths' order, twice where two cover it"


async def test_ten_thousand_small_files_make_one_input(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    for number in range(10_000):
        (files.root / f"{number:05}").write_bytes(b"%d\n" % number)
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job, seen = await work(kit, ask("delimited_files", files.uri, 500))
    assert job.status == Job.STATUS_SUCCEEDED
    assert stream(seen) == b"".join(b"%d," % number for number in range(10_000))
    assert len(files.reads) == 10_000, "they were read once, and copied"


async def test_a_dry_run_tells_what_would_be_read(tmp_path: Path, driver: ScriptedDriver, files: Directory) -> None:
    for name in ("a", "b", "c/d"):
        files.write_file(name, b"")
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        request = ask("delimited_files", files.uri, 1, excludes=[f"{files.uri}b"])
        request.dry_run = True
        answer = await kit.batch.SubmitJob(request)
    assert list(answer.files) == [f"{files.uri}a", f"{files.uri}c/d"]
    assert (answer.more_files, answer.HasField("job"), files.reads) == (0, False, [])


async def test_a_dry_run_names_as_many_files_as_fit_and_counts_the_others(
    tmp_path: Path, driver: ScriptedDriver, files: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        files.write_file(f"{number}", b"")
    monkeypatch.setattr("services.scheduler.api.batch_servicer.MAX_DRY_RUN_BYTES", 4 * (len(files.uri) + 1 + 6))
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        request = ask("file_path_lister", files.uri, 1)
        request.dry_run = True
        answer = await kit.batch.SubmitJob(request)
    assert (len(answer.files), answer.more_files) == (4, 6)


@pytest.mark.parametrize(
    ("path", "fields", "kind", "message"),
    [
        ("nothing", {}, "batchapi.no_s3_files_found", "no s3 files match search criteria"),
        ("", {"excludes": ["**"]}, "batchapi.no_s3_files_found", "no s3 files match search criteria"),
        ("../", {}, "files.invalid_path", ".."),
        ("/etc", {}, "files.", "/etc"),
    ],
)
async def test_what_cannot_be_read_is_refused_before_there_is_a_job(
    tmp_path: Path,
    driver: ScriptedDriver,
    files: Directory,
    path: str,
    fields: dict[str, list[str]],
    kind: str,
    message: str,
) -> None:
    files.write_file("a", b"1")
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        where = f"file://{path}" if path.startswith("/") else f"{files.uri}{path}"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await submit(kit, ask("delimited_files", where, 1, **fields))
        refusal = from_rpc_error(error.value)
        assert refusal.kind.startswith(kind)
        assert message in refusal.message
        assert not (await kit.batch.ListJobs(pb.ListJobsRequest())).jobs


async def test_a_store_that_hangs_refuses_a_job_in_time(
    tmp_path: Path, driver: ScriptedDriver, files: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_prefix: str, _after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        await asyncio.Event().wait()
        yield []

    monkeypatch.setattr(needs, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(files, "list", hang)
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await submit(kit, ask("delimited_files", files.uri, 1))
        assert from_rpc_error(error.value).kind == "aws.unreachable"
        assert "there is no job" in from_rpc_error(error.value).message
        assert not (await kit.batch.ListJobs(pb.ListJobsRequest())).jobs


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("b.jsonl", b"1\n2\n{]\n", "b.jsonl, line 3, item 3"),
        ("b.gz", gzip.compress(b"1\n" * 50_000)[:-20], "b.gz is named .gz but cannot be unpacked"),
        ("b.gz", b"1\n", "b.gz is named .gz but cannot be unpacked"),
        ("b.jsonl", b'"' + b"x" * 300_000 + b'"', "b.jsonl, line 1, item 1"),
    ],
    ids=["bad value", "cut gzip", "no gzip", "large item"],
)
async def test_a_file_that_is_wrong_ends_the_job_and_is_named(
    tmp_path: Path, driver: ScriptedDriver, files: Directory, name: str, data: bytes, message: str
) -> None:
    files.write_file("a.jsonl", b"[1]\n")
    files.write_file(name, data)
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job = await kit.until(await submit(kit, ask("delimited_files", files.uri, 1)), over)
    assert job.status == Job.STATUS_ENQUEUE_FAILED
    assert message in job.reason


async def test_files_without_items_end_the_job(tmp_path: Path, driver: ScriptedDriver, files: Directory) -> None:
    files.write_file("a", b"\n")
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job = await kit.until(await submit(kit, ask("delimited_files", files.uri, 1)), over)
    assert (job.status, "no items" in job.reason) == (Job.STATUS_ENQUEUE_FAILED, True)


async def test_a_file_that_changes_while_it_is_read_ends_the_job(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    path = files.write_file("a.jsonl", b"".join(item + b"\n" for item in values(40_000, seed=3)))

    async def change(stored: StoredObject, start: int) -> None:
        if start >= 4 << 20:
            path.write_bytes(b"[]\n" * 1000)

    files.before_chunk = change
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job = await kit.until(await submit(kit, ask("delimited_files", files.uri, 64)), over)
    assert job.status == Job.STATUS_ENQUEUE_FAILED
    assert "a.jsonl" in job.reason
    assert "changed" in job.reason


async def test_a_store_that_is_away_holds_a_job_up_and_no_more(
    tmp_path: Path, driver: ScriptedDriver, files: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    items = values(20_000, seed=4)
    files.write_file("a.jsonl", b"".join(item + b"\n" for item in items))

    async def go_away(stored: StoredObject, start: int) -> None:
        files.away = start == 1 << 20

    files.before_chunk = go_away
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job_id = await submit(kit, ask("delimited_files", files.uri, 64))
        job = await kit.until(job_id, lambda job: bool(job.reason))
        assert job.reason == "the store does not answer"
        assert [start for _, start, _ in files.reads] == [0]
        files.away, files.before_chunk = False, None
        worker = await kit.worker()
        await worker.open(credit=64)
        seen: dict[int, bytes] = {}
        job = await finish(kit, job_id, worker, seen)
    assert (job.status, job.reason) == (Job.STATUS_SUCCEEDED, "")
    assert stream(seen) == b"".join(item + b"," for item in items)
    # Batches of the first part may have been read, for a worker, before the input went on.
    assert 1 << 20 in [start for _, start, _ in files.reads[1:]], "it went on where it broke off"


@pytest.mark.parametrize("how", ["gone", "other", "same size and time"])
async def test_exactly_the_batches_whose_file_changed_fail(
    tmp_path: Path, driver: ScriptedDriver, files: Directory, how: str
) -> None:
    first, changed, last = (values(10_000, seed=number) for number in (5, 6, 7))
    paths = [
        files.write_file(name, b"".join(item + b"\n" for item in items))
        for name, items in (("a.jsonl", first), ("b.jsonl", changed), ("c.jsonl", last))
    ]
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job_id = await submit(kit, ask("delimited_files", files.uri, 100))
        job = await kit.until(job_id, split)
        assert job.total_batch_count == 300
    if how == "gone":
        paths[1].unlink()
    else:
        before = paths[1].stat()
        data = bytearray(paths[1].read_bytes())
        data[5_000:5_001] = b"9" if data[5_000:5_001] != b"9" else b"8"
        with paths[1].open("r+b") as file:
            file.write(data)
        if how == "same size and time":
            os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    async with scheduler(tmp_path, driver, objects=files) as kit:  # what was read ahead is forgotten
        worker = await kit.worker()
        await worker.open(credit=64)
        seen: dict[int, bytes] = {}
        job = await finish(kit, job_id, worker, seen)
        failed = await kit.batch.ListBatches(
            pb.ListBatchesRequest(api_name="hello", job_id=job_id, states=[Batch.STATE_FAILED], page_size=1000)
        )
        assert job.status == Job.STATUS_COMPLETED_WITH_FAILURES
        lost = [batch.index for batch in failed.batches]
        assert sorted([*seen, *lost]) == list(range(300))
        assert set(lost) <= set(range(100, 200)), "those of the file"
        assert lost, "it was noticed"
        if how != "same size and time":
            assert len(lost) == 100, "all that were to be read from it"
        for batch in failed.batches:
            assert (batch.attempts, batch.items_json) == (0, "")
            assert "b.jsonl" in batch.error
        assert job.metrics.failed == 0
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await kit.batch.RetryJob(pb.RetryJobRequest(api_name="hello", job_id=job_id))
        assert from_rpc_error(error.value).kind == "job.items_not_readable"


async def test_thousands_of_lost_batches_in_a_row_fail_and_the_job_goes_on(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    path = files.write_file("a.jsonl", b"".join(item + b"\n" for item in values(2_000, seed=10)))
    files.write_file("b.jsonl", b"".join(item + b"\n" for item in values(500, seed=11)))
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job_id = await submit(kit, ask("delimited_files", files.uri, 1))
        await kit.until(job_id, split)
    path.unlink()
    beyond = asyncio.Event()

    async def read(stored: StoredObject, _start: int) -> None:
        if stored.uri.endswith("b.jsonl"):
            beyond.set()

    files.before_chunk = read
    async with scheduler(tmp_path, driver, objects=files) as kit:
        worker = await kit.worker()
        async with asyncio.timeout(30):
            await beyond.wait()  # all that are lost wait for their turn at once
        await worker.open(credit=64)
        seen: dict[int, bytes] = {}
        job = await finish(kit, job_id, worker, seen)
    assert (job.batch_counts.succeeded, job.batch_counts.failed, job.total_batch_count) == (500, 2_000, 2_500)
    assert sorted(seen) == list(range(2_000, 2_500))


async def test_a_failed_batch_is_there_to_be_seen_and_retried_when_its_file_is_gone(
    tmp_path: Path, driver: ScriptedDriver, files: Directory
) -> None:
    items = values(2_000, seed=8)
    path = files.write_file("a.jsonl", b"".join(item + b"\n" for item in items))
    async with scheduler(tmp_path, driver, objects=files) as kit:
        await kit.deploy()
        job_id = await submit(kit, ask("delimited_files", files.uri, 100))
        worker = await kit.worker()
        await worker.open(credit=4)
        [lease, *_] = await worker.lease(1)
        await worker.send(worker.result(lease, ok=False))
        await finish(kit, job_id, worker, {})
        path.unlink()
        request = pb.ListBatchesRequest(api_name="hello", job_id=job_id, states=[Batch.STATE_FAILED])
        [failed] = (await kit.batch.ListBatches(request)).batches
        assert failed.items_json.encode() == lease.payload == b"[" + b",".join(items[:100]) + b"]"
        answer = await kit.batch.RetryJob(pb.RetryJobRequest(api_name="hello", job_id=job_id))
        assert not answer.warnings
        again = await kit.worker()
        await again.open()
        seen: dict[int, bytes] = {}
        job = await finish(kit, answer.job.job_id, again, seen)
        assert (job.status, seen) == (Job.STATUS_SUCCEEDED, {0: lease.payload})
