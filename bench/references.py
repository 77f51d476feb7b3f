"""What the figures are held against. Nothing here passes or fails: a benchmark only shows both.

*Prototype*: a throwaway prototype of the same design (2 dequeuers, concurrency 8, SQLite with fsync, one gRPC stream a
worker), without retries, timeouts, tracing or dead letters, on a machine of 2 cores with CPython 3.11 and ext4. It says
what the design can give at best. *Bound*: what this system is to hold on such a machine.

Figures of different machines are not comparable, the ratios between them hold better.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """What one figure is held against."""

    bound: float | None = None
    at_least: bool = True
    """The bound is a lower one."""
    prototype: float | None = None


REFERENCES: dict[str, Reference] = {
    "end_to_end.rate": Reference(bound=20_000, prototype=50_000),
    "end_to_end.cpu": Reference(bound=0.060, at_least=False),
    "end_to_end.rss": Reference(bound=60, at_least=False),
    "end_to_end.peak_rss": Reference(bound=90, at_least=False),
    "large_job.rate": Reference(bound=20_000, prototype=50_000),
    "large_job.steadiness": Reference(bound=90),
    "large_job.cpu": Reference(bound=0.060, at_least=False),
    "large_job.peak_rss": Reference(bound=90, at_least=False),
    "one_batch.last_reply_p50": Reference(bound=5, at_least=False),
    "streamed_item.seen_p50": Reference(bound=5, at_least=False),
    "streamed_item.seen_p99": Reference(bound=15, at_least=False),
    "file_job.ledger": Reference(bound=1, at_least=False),
    "file_job.scheduler_growth": Reference(bound=64, at_least=False),
    "results.ratio": Reference(bound=60),
    "start.ready": Reference(bound=1.5, at_least=False),
    "start.idle_gateway": Reference(bound=0.5, at_least=False),
    "start.idle_scheduler": Reference(bound=0.5, at_least=False),
    "start.idle_collector": Reference(bound=0.5, at_least=False),
    "start.idle_dequeuer": Reference(bound=0.5, at_least=False),
    "start.idle_cortex up": Reference(bound=0.5, at_least=False),
    "python_server.share_of_wrk": Reference(bound=60),
    "dispatch.share_of_wrk": Reference(bound=90),
    "dispatch.cpu": Reference(bound=0.015, at_least=False),
    "ledger.rate_64": Reference(bound=60_000, prototype=104_000),
    "ledger.each_64": Reference(bound=10, at_least=False),
    "ledger.rate_8": Reference(prototype=38_000),
    "ledger.rate_1": Reference(prototype=5_900),
    "partition.rate": Reference(bound=300),
    "partition.memory": Reference(bound=2.0, at_least=False),
    "ndjson.local": Reference(bound=500),
    "ndjson.local_rss": Reference(bound=80, at_least=False),
    "ndjson.s3": Reference(bound=250),
    "ndjson.s3_rss": Reference(bound=80, at_least=False),
}
"""By the figure's key."""


@dataclass(frozen=True)
class Peer:
    """Another system that did 10,000 batches of 1 KiB against the same server, with two worker processes."""

    name: str
    rate: float
    """Batches a second."""
    cpu: float
    """Worker CPU seconds per 1000 batches; where a range was measured, its lower end."""


PEERS = (
    Peer("Ray actors, 100 a call", 13_500, 0.10),
    Peer("Celery + Redis, chunks of 100", 10_700, 0.13),
    Peer("dramatiq + Redis", 3_100, 0.38),
    Peer("Ray actors, one a call", 2_200, 0.58),
    Peer("Dask", 1_400, 0.7),
    Peer("Celery, one task a batch", 820, 1.2),
)
"""Measured where the prototype was measured; they do not run here."""
