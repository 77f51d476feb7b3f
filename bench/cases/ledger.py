"""The full life of batches of 1 KiB in the ledger, so many at a time, durable."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.ledger import full_life
from bench.report import Figure

GROUPS = {1: 3_000, 8: 20_000, 64: 100_000, 256: 100_000}
"""Batches at a time -> batches in all."""


def figures() -> Iterator[Figure]:
    """Rates of one caller."""
    for size, batches in GROUPS.items():
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as directory:
            seconds = asyncio.run(full_life(Path(directory) / "ledger.db", batches, size, 1))
        yield Figure(f"ledger.rate_{size}", f"ledger, {size} at a time", batches / seconds, "batches/s")
        if size == 64:
            yield Figure("ledger.each_64", "  time a batch", seconds / batches * 1e6, "us")
