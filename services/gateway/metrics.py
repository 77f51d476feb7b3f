"""What Prometheus reads: the jobs' series under Cortex's names, and the gateway's own.

Jobs are counted by the scheduler, so their series come from what it says at each scrape and survive a restart of the
gateway. A finished job's series stay `KEPT_S`, long enough for the last values to be scraped. Their text is written
here, because prometheus_client ends every counter's name with `_total`.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from cortex.batch.v1.resources_pb2 import BatchCounts, Job, WorkerCounts
from services.gateway.scheduler import Scheduler

KEPT_S = 15 * 60
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
MAX_RECENT = 2000
"""So many of the newest jobs are looked through for finished ones."""


class RequestMetrics:
    """The gateway's own series."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types it in part
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cortex_gateway_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "cortex_gateway_request_duration_seconds",
            "Time from an HTTP request's head to the beginning of its answer.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """The series as text."""
        return generate_latest(self._registry)


class JobSeries:
    """The jobs whose series are shown: those in progress, and those that ended a while ago."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._known: dict[str, Job] = {}
        self._one_at_a_time = asyncio.Lock()

    async def text(self) -> str:
        """The series as text. Raises `CortexError` while the scheduler cannot be reached."""
        async with self._one_at_a_time:
            await self._refresh(time.time() - KEPT_S)
            return "".join(_exposition(self._known.values()))

    async def _refresh(self, oldest_s: float) -> None:
        seen = {job.job_id: job async for job in self._scheduler.jobs(running_only=True)}
        looked_at = 0
        async for job in self._scheduler.jobs():
            looked_at += 1
            seen.setdefault(job.job_id, job)
            if job.created_time.seconds < oldest_s or looked_at >= MAX_RECENT:
                break
        for job_id, job in self._known.items():
            if job_id not in seen:  # long in progress, and over since the last scrape or some before
                over = job.HasField("end_time")
                seen[job_id] = job if over else (await self._scheduler.job(job.api_name, job_id)).job
        self._known = {
            job_id: job
            for job_id, job in seen.items()
            if not job.HasField("end_time") or job.end_time.seconds >= oldest_s
        }


def _exposition(jobs: Iterable[Job]) -> Iterator[str]:
    jobs = sorted(jobs, key=lambda job: (job.api_name, job.job_id))
    yield from _head("cortex_batch_succeeded", "counter", "Attempts of batches that succeeded.")
    for job in jobs:
        yield f"cortex_batch_succeeded{{{_labels(job)}}} {job.metrics.succeeded}\n"
    yield from _head("cortex_batch_failed", "counter", "Attempts of batches that failed.")
    for job in jobs:
        yield f"cortex_batch_failed{{{_labels(job)}}} {job.metrics.failed}\n"
    yield from _head("cortex_time_per_batch", "histogram", "Seconds that successful attempts of batches took.")
    for job in jobs:
        yield from _histogram(job)
    yield from _head("cortex_job_batches", "gauge", "Batches of a job, by state.")
    for job in jobs:
        yield from _by_state("cortex_job_batches", job, job.batch_counts)
    yield from _head("cortex_job_workers", "gauge", "Workers of a job that is not over, by state.")
    for job in jobs:
        if not job.HasField("end_time"):
            yield from _by_state("cortex_job_workers", job, job.worker_counts)
    yield from _head("cortex_job_status", "gauge", "1 for the status that a job has.")
    for job in jobs:
        status = Job.Status.Name(job.status).removeprefix("STATUS_").lower()
        yield f'cortex_job_status{{{_labels(job)},status="{status}"}} 1\n'


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"


def _histogram(job: Job) -> Iterator[str]:
    labels, count = _labels(job), 0
    for bound, more in zip(job.metrics.bucket_bounds_seconds, job.metrics.bucket_counts, strict=False):
        count += more
        yield f'cortex_time_per_batch_bucket{{{labels},le="{bound!r}"}} {count}\n'
    total = sum(job.metrics.bucket_counts)
    yield f'cortex_time_per_batch_bucket{{{labels},le="+Inf"}} {total}\n'
    yield f"cortex_time_per_batch_sum{{{labels}}} {job.metrics.succeeded_seconds!r}\n"
    yield f"cortex_time_per_batch_count{{{labels}}} {total}\n"


def _by_state(name: str, job: Job, counts: BatchCounts | WorkerCounts) -> Iterator[str]:
    """All states, those without any too: a series that comes and goes draws no line."""
    for field in counts.DESCRIPTOR.fields:
        yield f'{name}{{{_labels(job)},state="{field.name}"}} {getattr(counts, field.name)}\n'


def _labels(job: Job) -> str:
    return f'api_name="{job.api_name}",job_id="{job.job_id}"'
