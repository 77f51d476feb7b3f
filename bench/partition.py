"""Splitting an item list into batches: rate, and memory beside the input. `python -m bench.partition`"""

import time
import tracemalloc
from collections.abc import Callable
from functools import partial

from services.scheduler.domain.items import read_items
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.partition import Partitioner

TEXT_BYTES = 10 * 1024 * 1024 - 1024
ITEMS = {
    "160 bytes": '{"id":123456,"text":"' + "x" * 98 + '","vector":[1.5,2.5,-3e2],"valid":true}',
    "vectors": "[" + ",".join(["0.12345"] * 512) + "]",
    "nested": '{"a":{"b":1,"c":[{"x":1},{"y":2}]},"d":{"e":5},"t":"' + "z" * 60 + '"}',
    "not ASCII": '{"t":"' + "привет" * 10 + '"}',
    "escapes": '{"t":"' + "\\ud83d\\ude00\\\\" * 10 + '"}',
    "1": "1",
    "[[1],[2]]": "[[1],[2]]",
    "half pairs": '"\\ud800"',
    "200 KB of []": "[" + ",".join(["[]"] * 66_000) + "]",
}


def main() -> None:
    print(f"{TEXT_BYTES:,} bytes of items of one kind, batches of 8")
    for name, item in ITEMS.items():
        text = ("[" + ",".join([item] * (TEXT_BYTES // (len(item.encode()) + 1))) + "]").encode()
        batch_size = 8 if len(item) < 30_000 else 1
        reading = best_of(3, partial(read_items, text, batch_size))
        pieces = read_items(text, batch_size)
        splitting = best_of(3, partial(split, pieces, batch_size))
        tracemalloc.start()
        read_items(text, batch_size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"{name:14} read and checked {len(text) / reading / 1e6:6.0f} MB/s, added {peak / len(text):4.1f}x;"
            f" split {len(text) / splitting / 1e6:6.0f} MB/s"
        )


def split(pieces: list[bytes], batch_size: int) -> int:
    """The number of batches."""
    partitioner = Partitioner(batch_size, Cursor())
    for piece in pieces:
        partitioner.feed(piece)
    partitioner.finish()
    return partitioner.cursor.next_index


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the quickest run."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
