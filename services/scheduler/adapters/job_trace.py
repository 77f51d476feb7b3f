"""The spans of a job.

    SubmitJob (the request)
      +- partition
      +- job                          from acceptance to its end; its span id is the job id
           +- start worker            until it is ready for batches
           +- batch                   one for each attempt: from its lease until its outcome is on disk
           |    +- deliver batch      the dequeuer's
           |    +- record outcome
           +- on-job-complete
                +- ...                the dequeuer's

All are recorded when they are over, under ids that were handed on before, so that a restart in between breaks no
link. In big jobs the first batches and then a few of them are sampled; failures are always recorded, by the dequeuer.
"""

import time

from services.common.telemetry import Telemetry, child_traceparent, new_span_id, sampled
from services.scheduler.domain.leases import Lease
from services.scheduler.domain.model.job import JobRecord, JobState, JobStatus, Tally
from services.scheduler.domain.model.worker import WorkerRecord

ALWAYS_SAMPLED = 100
SAMPLED_EVERY = 1000


class _OpenBatch:
    """A sampled batch on its way."""

    __slots__ = ("answered_ns", "attempt", "leased_ns", "span_id", "worker")

    def __init__(self, lease: Lease) -> None:
        self.span_id = new_span_id()
        self.leased_ns = time.time_ns()
        self.answered_ns = 0
        self.attempt = lease.attempt
        self.worker = lease.worker


class OtelJobTrace:
    """Records one job's spans through the telemetry kit."""

    def __init__(self, telemetry: Telemetry, job: JobRecord) -> None:
        self._telemetry = telemetry
        self._job = job
        self._span_id = int(job.spec.job_id, 16)
        self._sampled = sampled(job.spec.traceparent)
        self._context = child_traceparent(job.spec.traceparent, self._span_id, self._sampled)
        self._unsampled = child_traceparent(job.spec.traceparent, self._span_id, sampled=False)
        self._batches: dict[int, _OpenBatch] = {}
        self._starting: dict[int, int] = {}  # since when, by slot: a worker may get another id
        self._completion: tuple[int, int] | None = None  # span id, start

    def accepted(self, batches: int) -> None:
        """The submission was checked, split and stored."""
        self._telemetry.record(
            "partition",
            self._job.spec.traceparent,
            self._job.spec.created_ns,
            time.time_ns(),
            attributes={"cortex.job_id": self._job.spec.job_id, "cortex.batches": batches},
        )

    def batch_leased(self, lease: Lease) -> str:
        """A batch goes out; the traceparent that goes with it."""
        index = lease.index
        if not self._sampled or (index >= ALWAYS_SAMPLED and index % SAMPLED_EVERY):
            return self._unsampled
        batch = self._batches[index] = _OpenBatch(lease)
        return child_traceparent(self._context, batch.span_id, sampled=True)

    def batch_answered(self, index: int) -> None:
        """The worker told how an attempt ended."""
        if self._batches and (batch := self._batches.get(index)) is not None:
            batch.answered_ns = time.time_ns()

    def batch_settled(self, index: int, error: str) -> None:
        """A batch's attempt is over and, if it was the last, on disk."""
        if not self._batches or (batch := self._batches.pop(index, None)) is None:
            return
        now_ns = time.time_ns()
        context = child_traceparent(self._context, batch.span_id, sampled=True)
        if batch.answered_ns:
            self._telemetry.record("record outcome", context, batch.answered_ns, now_ns)
        self._telemetry.record(
            "batch",
            self._context,
            batch.leased_ns,
            now_ns,
            attributes={"cortex.batch": index, "cortex.attempt": batch.attempt, "cortex.worker_id": batch.worker},
            error=error,
            span_id=batch.span_id,
        )

    def worker_starting(self, worker: WorkerRecord) -> None:
        """A worker is being started."""
        self._starting[worker.slot] = time.time_ns()

    def worker_ready(self, worker: WorkerRecord) -> None:
        """A worker takes batches, for the first time or again."""
        self._started(worker)

    def worker_lost(self, worker: WorkerRecord, reason: str) -> None:
        """A worker is gone while the job goes on; tells something only of one that was never ready."""
        self._started(worker, reason)

    def _started(self, worker: WorkerRecord, error: str = "") -> None:
        start_ns = self._starting.pop(worker.slot, None)
        if start_ns is None:
            return
        self._telemetry.record(
            "start worker",
            self._context,
            start_ns,
            time.time_ns(),
            attributes={"cortex.worker": worker.slot, "cortex.worker_id": worker.worker_id},
            error=error,
        )

    def job_complete(self) -> str:
        """/on-job-complete is due; the traceparent that goes with it."""
        if self._completion is None:
            self._completion = (new_span_id(), time.time_ns())
        return child_traceparent(self._context, self._completion[0], self._sampled)

    def finished(self, state: JobState, tally: Tally) -> None:
        """The job is over."""
        now_ns = time.time_ns()
        if self._completion is not None:
            span_id, start_ns = self._completion
            error = state.completion.error if state.completion is not None else "no answer"
            self._telemetry.record("on-job-complete", self._context, start_ns, now_ns, error=error, span_id=span_id)
        spec = self._job.spec
        self._telemetry.record(
            "job",
            spec.traceparent,
            spec.created_ns,
            now_ns,
            attributes={
                "cortex.job_id": spec.job_id,
                "cortex.api_name": spec.api_name,
                "cortex.status": state.status.value,
                "cortex.batches_succeeded": tally.batches_succeeded,
                "cortex.batches_failed": tally.batches_failed,
            },
            error="" if state.status is JobStatus.SUCCEEDED else state.reason or state.status.value,
            span_id=self._span_id,
        )
