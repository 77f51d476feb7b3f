"""Jobs over files, through the real system: this machine's below `--input-root`, and those of an S3 server."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cortex.exceptions import CortexException
from tests.contract.object_servers import AwsServer
from tests.e2e.system import System, system

pytestmark = pytest.mark.timeout(120)

ITEMS = [{"number": number, "text": "x" * 50} for number in range(40)]
LINES = [json.dumps(item).encode() + b"\n" for item in ITEMS]
FILES = {"in/a.jsonl": b"".join(LINES[:20]), "in/b/c d.jsonl.gz": gzip.compress(b"".join(LINES[20:])), "in/not": b"?"}


def selection(base: str) -> Any:
    return {"s3_paths": [f"{base}in/"], "includes": ["**.jsonl", "**.gz"]}


def do_both_jobs(running: System, base: str) -> None:
    """One over the files' values, which writes its results, and one over their paths."""
    results: Any = {"s3_path": f"{base}results"}
    job = running.client.submit_job("hello", delimited_files=selection(base), workers=2, batch_size=7, results=results)
    status = running.wait(job["job_id"])["job_status"]
    assert (status["status"], status["total_batch_count"]) == ("succeeded", 6), status
    expected = {json.dumps(item): 1 for item in ITEMS}
    assert running.done() == expected
    job = running.client.submit_job("hello", file_path_lister=selection(base), workers=1, batch_size=1)
    assert running.wait(job["job_id"])["job_status"]["status"] == "succeeded"
    paths = [f"{base}{name}" for name in FILES if name != "in/not"]
    assert running.done() == expected | {json.dumps(path): 1 for path in paths}


def test_files_below_an_input_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "in" / "link").symlink_to("/etc")
    options = ["--input-root", os.path.relpath(root, tmp_path), "--input-root", "/usr/share"]
    with system(tmp_path, options=options) as running:
        running.deploy()
        with pytest.raises(CortexException, match="link that leads out of") as caught:
            running.client.submit_job("hello", delimited_files=selection(f"file://{root}/"), workers=1, batch_size=7)
        assert caught.value.kind == "files.outside_roots"
        with pytest.raises(CortexException, match="cortex up --input-root DIR") as caught:
            running.client.submit_job("hello", file_path_lister=selection("file:///etc/"), workers=1, batch_size=1)
        assert caught.value.kind == "files.outside_roots"
        (root / "in" / "link").unlink()
        do_both_jobs(running, f"file://{root}/")
        assert b"aiohttp" not in scheduler_memory(running)
    written = [path for path in (root / "results").rglob("*") if path.is_file()]
    assert sorted(len(path.read_bytes().splitlines()) for path in written) == [0, 6]


def test_objects_of_an_s3_server(tmp_path: Path, ministack: AwsServer) -> None:
    client = ministack.s3()
    client.create_bucket(Bucket="files")
    for name, content in FILES.items():
        client.put_object(Bucket="files", Key=name, Body=content)
    with system(tmp_path, ministack.environ) as running:
        running.deploy()
        with pytest.raises(CortexException, match="s3://nothing/in/: there is no such bucket") as caught:
            running.client.submit_job("hello", file_path_lister=selection("s3://nothing/"), workers=1, batch_size=1)
        assert caught.value.kind == "aws.no_such_bucket"
        do_both_jobs(running, "s3://files/")
        assert b"aiohttp" in scheduler_memory(running)
    written = client.list_objects_v2(Bucket="files", Prefix="results")["Contents"]
    bodies = [client.get_object(Bucket="files", Key=found["Key"])["Body"].read() for found in written]
    assert sorted(len(body.splitlines()) for body in bodies) == [0, 6]


def scheduler_memory(running: System) -> bytes:
    """The files that the scheduler has mapped: what it has imported, as far as that is machine code."""
    (scheduler,) = running.processes("services.scheduler")
    return Path(f"/proc/{scheduler.pid}/maps").read_bytes()
