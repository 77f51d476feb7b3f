"""Reading, checking and splitting a submission of almost 10 MiB with items of 160 bytes, batches of 8."""

import tracemalloc
from collections.abc import Iterator

from bench.partition import ITEMS, TEXT_BYTES, best_of, split
from bench.report import Figure
from services.scheduler.domain.items import read_items

ITEM = ITEMS["160 bytes"]
BATCH_SIZE = 8


def figures() -> Iterator[Figure]:
    """The rate, and the memory added to the input's."""
    text = ("[" + ",".join([ITEM] * (TEXT_BYTES // (len(ITEM) + 1))) + "]").encode()
    seconds = best_of(3, lambda: split(read_items(text, BATCH_SIZE), BATCH_SIZE))
    tracemalloc.start()
    split(read_items(text, BATCH_SIZE), BATCH_SIZE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    yield Figure("partition.rate", "partition, items of 160 bytes", len(text) / seconds / 1e6, "MB/s")
    yield Figure("partition.memory", "  memory added, times the input", peak / len(text), "x")
