"""Jobs whose items are in files, for tests: asking for them, working them off, and what is stored of them."""

import random
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from tests.integration.scheduler_kit import Kit, ScriptedWorker


def ask(kind: str, path: str, batch_size: int, **fields: Iterable[str]) -> pb.SubmitJobRequest:
    """A submission of the files below a path."""
    request = pb.SubmitJobRequest(api_name="hello", workers=1)
    selection = getattr(request, kind)
    selection.s3_paths.extend(fields.pop("s3_paths", [path]))
    selection.batch_size = batch_size
    for name, globs in fields.items():
        getattr(selection, name).extend(globs)
    return request


async def submit(kit: Kit, request: pb.SubmitJobRequest) -> str:
    return (await kit.batch.SubmitJob(request)).job.job_id


async def finish(kit: Kit, job_id: str, worker: ScriptedWorker, seen: dict[int, bytes]) -> resources_pb2.Job:
    """Succeed with what is left of a job."""
    await worker.work_off(seen)
    await worker.answer_completion()
    return await kit.until(job_id, over)


async def work(kit: Kit, request: pb.SubmitJobRequest) -> tuple[resources_pb2.Job, dict[int, bytes]]:
    """Submit a job and do all of it."""
    job_id = await submit(kit, request)
    worker = await kit.worker()
    await worker.open(credit=64)
    seen: dict[int, bytes] = {}
    return await finish(kit, job_id, worker, seen), seen


def over(job: resources_pb2.Job) -> bool:
    return job.HasField("end_time")


def split(job: resources_pb2.Job) -> bool:
    return job.HasField("total_batch_count")


def stream(seen: Mapping[int, bytes]) -> bytes:
    """The item stream that these batches were made from."""
    return b"".join(payload[1:-1] + b"," for _, payload in sorted(seen.items()))


def stored_bytes(directory: Path) -> int:
    """Bytes of input that were copied."""
    with closing(sqlite3.connect(directory / "ledger.db")) as connection:
        return int(connection.execute("SELECT coalesce(sum(length(bytes)), 0) FROM input").fetchone()[0])


def values(count: int, seed: int, size: int = 300) -> list[bytes]:
    """Items of all sizes, as JSON."""
    numbers = random.Random(seed)  # a reproducible one
    return [b'{"n": %d, "t": "%s"}' % (number, b"x" * numbers.randrange(size)) for number in range(count)]
