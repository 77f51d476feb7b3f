"""The full life of batches of 1 KiB in the ledger, so many at a time, durable."""

import asyncio
from collections.abc import Iterator

from bench.ledger import full_life, postgresql, sqlite
from bench.report import Figure

GROUPS = {1: 3_000, 8: 20_000, 64: 100_000, 256: 100_000}
"""Batches at a time -> batches in all."""


def figures() -> Iterator[Figure]:
    """Rates of one caller."""
    for what, name, engines in (("ledger", "ledger", sqlite), ("ledger.postgresql", "in PostgreSQL", postgresql)):
        with engines() as new:
            for size, batches in GROUPS.items():
                seconds = asyncio.run(full_life(new(), batches, size, 1))
                yield Figure(f"{what}.rate_{size}", f"{name}, {size} at a time", batches / seconds, "batches/s")
                if size == 64:
                    yield Figure(f"{what}.each_64", "  time a batch", seconds / batches * 1e6, "us")
