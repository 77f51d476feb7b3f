"""One item after another is appended to a running streamed job: how soon its outcome is seen.

The next item goes out a moment after the last one's outcome was seen at WatchJob, so that nothing waits behind anything
else: what is measured is the way of one item through all processes, with its two fsyncs.
"""

import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.containers import fast_server
from bench.report import Figure
from bench.system import API, JOB_SECONDS, System, must_succeed, running
from cortex.batch.v1 import batch_service_pb2 as pb

ITEMS = 500
WARM_UP = 20
PAUSE_S = 0.01
"""Between two items: a watch tells of 200 changes a second at most, and of each at once while there are fewer."""


def figures() -> Iterator[Figure]:
    """Percentiles in milliseconds."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        system.deploy(fast_server(Path(directory)).command())
        waits = _one_after_another(system)
    seen = [1e3 * (wait.seen - wait.sent) for wait in waits]
    durable = [1e3 * (wait.durable - wait.sent) for wait in waits]
    yield Figure(
        "streamed_item.seen_p50", "item sent to a running stream: to its outcome at WatchJob, p50", median(seen), "ms"
    )
    yield Figure("streamed_item.seen_p99", "  the same, p99", quantiles(seen, n=100)[-1], "ms")
    yield Figure("streamed_item.durable_p50", "  to the word that it is on disk, p50", median(durable), "ms")


@dataclass(frozen=True)
class Wait:
    """What became of one item, on the monotonic clock."""

    sent: float
    durable: float
    seen: float


class Stream:
    """An open stream of items."""

    def __init__(self, system: System) -> None:
        self._items: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answers = system.stream(self._messages())
        self.job_id = next(self._answers).job.job_id
        self.durable: list[tuple[int, float]] = []
        """Items said to be on disk, and when that was said."""
        self._reading = threading.Thread(target=self._read, name="answers to the stream")
        self._reading.start()

    def _messages(self) -> Iterator[pb.SubmitJobStreamRequest]:
        job = pb.SubmitJobRequest(api_name=API, workers=1, timeout_seconds=JOB_SECONDS)
        yield pb.SubmitJobStreamRequest(job=job, batch_size=1)
        while (item := self._items.get()) is not None:
            yield pb.SubmitJobStreamRequest(items_json=[item])

    def send(self, item: str) -> None:
        self._items.put(item)

    def end(self) -> None:
        """These were all; returns when all is on disk."""
        self._items.put(None)
        self._reading.join()

    def _read(self) -> None:
        for answer in self._answers:
            self.durable.append((answer.items, time.monotonic()))


def _one_after_another(system: System) -> list[Wait]:
    stream = Stream(system)
    watch = system.watch(stream.job_id)
    sent, seen = [], []
    for number in range(1, WARM_UP + ITEMS + 1):
        time.sleep(PAUSE_S)
        sent.append(time.monotonic())
        stream.send('"one"')
        seen.append(next(each.at for each in watch if each.final_batches >= number))
    stream.end()
    *_, last = watch
    must_succeed(last)
    durable = [next(at for items, at in stream.durable if items >= number) for number in range(1, len(sent) + 1)]
    return [Wait(*each) for each in zip(sent, durable, seen, strict=True)][WARM_UP:]
