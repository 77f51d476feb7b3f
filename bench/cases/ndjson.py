"""A file of 256 MiB, an item of 160 bytes on each line, read and split by a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.jobs import write_lines
from bench.partition import ITEMS
from bench.report import Figure
from tests.contract.object_servers import running_seaweedfs

LINE = ITEMS["160 bytes"].encode() + b"\n"
FILE_BYTES = 256 * 1024 * 1024
ROUNDS = 3


def figures() -> Iterator[Figure]:
    """Rate and memory of the best of some rounds."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as name:
        directory = Path(name).resolve()
        file = write_lines(directory / "items.ndjson", LINE, FILE_BYTES // len(LINE))
        yield from _both("local", "a local file", f"file://{file}", {})
        (directory / "seaweedfs").mkdir()
        with running_seaweedfs(directory / "seaweedfs") as server:
            client = server.s3()
            client.create_bucket(Bucket="bench")
            client.upload_file(str(file), "bench", "items.ndjson")
            yield from _both("s3", "from S3", "s3://bench/items.ndjson", server.environ)


def _both(key: str, what: str, address: str, environ: Mapping[str, str]) -> Iterator[Figure]:
    best = min((_measured(address, environ) for _ in range(ROUNDS)), key=lambda told: float(told["seconds"]))
    yield Figure(f"ndjson.{key}", f"NDJSON, {what}", best["bytes"] / best["seconds"] / 1e6, "MB/s")
    yield Figure(f"ndjson.{key}_rss", "  memory of the process", best["mib"], "MiB")


def _measured(address: str, environ: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.ndjson", address]
    done = subprocess.run(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["items"] * len(LINE) == told["bytes"]
    return told
