"""The scheduler's series."""

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.common.telemetry import Telemetry
from services.scheduler.adapters.job_trace import OtelJobTrace
from services.scheduler.domain.model.job import JobRecord, JobState
from services.scheduler.domain.model.job import Tally as JobTally
from services.scheduler.domain.model.worker import WorkerRecord
from services.scheduler.usecases.running.job_view import JobView

ANSWER_S = 5.0
"""A scrape waits so long for the event loop, and fails then."""
_COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """What is counted, and what is looked up: both by their names in Prometheus."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types it in part
        self.registry = registry = CollectorRegistry()
        self._leader = Gauge("cortex_scheduler_leader", "1 in the scheduler that leads.", registry=registry)
        self._commit = Histogram(
            "cortex_ledger_commit_seconds",
            "Seconds that a group of writes to the ledger took, until it was on disk.",
            buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )
        self._writes = Counter("cortex_ledger_writes", "Writes to the ledger.", registry=registry)
        self._refused = Counter(
            "cortex_ledger_failures", "Writes that the ledger's database refused.", registry=registry
        )
        self._lag = Histogram(
            "cortex_scheduler_event_loop_lag_seconds",
            "How late the event loop was, looked at once a second.",
            buckets=_LAG_BUCKETS_S,
            registry=registry,
        )
        self._starts = Counter("cortex_scheduler_worker_starts", "Workers started.", registry=registry)
        self._losses = Counter(
            "cortex_scheduler_worker_losses", "Workers lost while their job went on.", registry=registry
        )
        self._ended = Counter("cortex_scheduler_jobs_ended", "Jobs that ended.", ("status",), registry=registry)

    def lead(self, running: Callable[[], Sequence[JobView]]) -> None:
        """This scheduler leads now. `running` gives the jobs at work; it is asked on this event loop."""
        self._leader.set(1)
        self.registry.register(_Running(running, asyncio.get_running_loop()))

    def committed(self, seconds: float, writes: int, refused: int) -> None:
        """The ledger wrote a group. In any thread."""
        self._commit.observe(seconds)
        self._writes.inc(writes)
        self._refused.inc(refused)

    def late(self, seconds: float) -> None:
        """The event loop was so late."""
        self._lag.observe(seconds)

    def job_trace(self, telemetry: Telemetry, job: JobRecord) -> "MeasuredJobTrace":
        """The job's spans; what they tell of workers and of its end is counted."""
        return MeasuredJobTrace(telemetry, job, self)

    def worker_starting(self) -> None:
        """A worker is being started."""
        self._starts.inc()

    def worker_lost(self) -> None:
        """A worker is gone while its job goes on."""
        self._losses.inc()

    def job_ended(self, status: str) -> None:
        """A job is over."""
        self._ended.labels(status).inc()


class MeasuredJobTrace(OtelJobTrace):
    """A job's trace that counts. What is done for each batch stays as it is."""

    def __init__(self, telemetry: Telemetry, job: JobRecord, metrics: Metrics) -> None:
        super().__init__(telemetry, job)
        self._metrics = metrics

    def worker_starting(self, worker: WorkerRecord) -> None:
        """See the port."""
        self._metrics.worker_starting()
        super().worker_starting(worker)

    def worker_lost(self, worker: WorkerRecord, reason: str) -> None:
        """See the port."""
        self._metrics.worker_lost()
        super().worker_lost(worker, reason)

    def finished(self, state: JobState, tally: JobTally) -> None:
        """See the port."""
        self._metrics.job_ended(state.status.value)
        super().finished(state, tally)


class _Running(Collector):
    """The jobs at work, summed up at each scrape. A job's own series are the gateway's."""

    def __init__(self, running: Callable[[], Sequence[JobView]], loop: asyncio.AbstractEventLoop) -> None:
        self._running = running
        self._loop = loop

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: the registry would look at the jobs to learn their series' names, on this very loop."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The series as they are now. In the scrape's thread."""
        views = asyncio.run_coroutine_threadsafe(self._look(), self._loop).result(ANSWER_S)
        workers = sum((Tally(view.workers or {}) for view in views), Tally())
        by_state = GaugeMetricFamily("cortex_scheduler_workers", "Workers by state.", labels=("state",))
        for state, number in sorted(workers.items()):
            by_state.add_metric((state,), number)
        yield by_state
        yield GaugeMetricFamily("cortex_scheduler_jobs", "Jobs at work.", len(views))
        held_up = sum(bool(view.trouble) for view in views)
        yield GaugeMetricFamily("cortex_scheduler_jobs_held_up", "Jobs at work that say what holds them up.", held_up)
        leased = sum(view.leased for view in views)
        yield GaugeMetricFamily("cortex_scheduler_batches_leased", "Batches in workers' hands.", leased)
        pending = sum(view.pending for view in views)
        yield GaugeMetricFamily("cortex_scheduler_batches_pending", "Known batches that wait.", pending)

    async def _look(self) -> Sequence[JobView]:
        return self._running()
