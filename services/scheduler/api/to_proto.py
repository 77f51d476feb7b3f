"""The scheduler's values as protobuf messages."""

from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1 import resources_pb2
from services.common.telemetry import trace_id
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState
from services.scheduler.domain.model.job import BUCKET_BOUNDS_SECONDS, JobSpec, JobStatus, Tally
from services.scheduler.domain.model.options import Options
from services.scheduler.usecases.output.batch_pages import BatchView
from services.scheduler.usecases.running.job_view import JobView

STATUS = {
    JobStatus.PENDING: resources_pb2.Job.STATUS_PENDING,
    JobStatus.ENQUEUING: resources_pb2.Job.STATUS_ENQUEUING,
    JobStatus.RUNNING: resources_pb2.Job.STATUS_RUNNING,
    JobStatus.SUCCEEDED: resources_pb2.Job.STATUS_SUCCEEDED,
    JobStatus.ENQUEUE_FAILED: resources_pb2.Job.STATUS_ENQUEUE_FAILED,
    JobStatus.COMPLETED_WITH_FAILURES: resources_pb2.Job.STATUS_COMPLETED_WITH_FAILURES,
    JobStatus.WORKER_ERROR: resources_pb2.Job.STATUS_WORKER_ERROR,
    JobStatus.WORKER_OOM: resources_pb2.Job.STATUS_WORKER_OOM,
    JobStatus.TIMED_OUT: resources_pb2.Job.STATUS_TIMED_OUT,
    JobStatus.STOPPED: resources_pb2.Job.STATUS_STOPPED,
    JobStatus.UNEXPECTED_ERROR: resources_pb2.Job.STATUS_UNEXPECTED_ERROR,
}

BATCH_STATE = {
    BatchState.PENDING: resources_pb2.Batch.STATE_PENDING,
    BatchState.LEASED: resources_pb2.Batch.STATE_LEASED,
    BatchState.SUCCEEDED: resources_pb2.Batch.STATE_SUCCEEDED,
    BatchState.FAILED: resources_pb2.Batch.STATE_FAILED,
    BatchState.SPLIT: resources_pb2.Batch.STATE_SPLIT,
}


def timestamp(nanoseconds: int) -> Timestamp:
    """A point in time."""
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def api(version: ApiVersion) -> resources_pb2.BatchApi:
    """An API."""
    return resources_pb2.BatchApi(
        name=version.name,
        api_id=version.api_id,
        endpoint=version.endpoint,
        spec_json=version.spec_json,
        last_updated=timestamp(version.deployed_ns),
    )


def api_version(version: ApiVersion) -> resources_pb2.BatchApiVersion:
    """One of an API's versions."""
    return resources_pb2.BatchApiVersion(api_id=version.api_id, last_updated=timestamp(version.deployed_ns))


def batch(view: BatchView) -> resources_pb2.Batch:
    """A batch as it is."""
    return resources_pb2.Batch(
        index=view.index,
        state=BATCH_STATE[view.state],
        attempts=view.attempts,
        http_status=view.http_status,
        error=view.error,
        time=None if view.ended_ns is None else timestamp(view.ended_ns),
        items_json=view.items.decode(),
        reply_json=view.reply.decode(),
    )


def job(view: JobView) -> resources_pb2.Job:
    """A job as it is."""
    spec, state = view.job.spec, view.job.state
    message = _spec(spec)
    message.workers = view.job.workers
    message.paused = view.job.control.paused and not state.status.final
    message.status = STATUS[state.status]
    message.reason = state.reason or view.trouble
    if view.job.total_batches is not None:
        message.total_batch_count = view.job.total_batches
    if state.ended_ns is not None:
        message.end_time.CopyFrom(timestamp(state.ended_ns))
    tally = view.job.tally
    message.batch_counts.pending = view.pending
    message.batch_counts.leased = view.leased
    message.batch_counts.succeeded = tally.batches_succeeded
    message.batch_counts.failed = tally.batches_failed
    message.metrics.CopyFrom(_metrics(tally))
    message.retried_by = view.job.retried_by
    if view.job.webhook is not None:
        message.webhook.attempts = view.job.webhook.attempts
        message.webhook.error = view.job.webhook.error
        if view.job.webhook.delivered_ns is not None:
            message.webhook.delivered_time.CopyFrom(timestamp(view.job.webhook.delivered_ns))
    if view.progress is not None:
        message.progress.batches_per_second = view.progress.batches_per_second
        if view.progress.eta_seconds is not None:
            message.progress.eta_seconds = view.progress.eta_seconds
    if view.workers is not None:
        message.worker_counts.CopyFrom(resources_pb2.WorkerCounts(**view.workers))
    if state.completion is not None:
        message.completion.http_status = state.completion.http_status
        message.completion.error = state.completion.error
    return message


def _spec(spec: JobSpec) -> resources_pb2.Job:
    message = resources_pb2.Job(
        job_id=spec.job_id,
        api_name=spec.api_name,
        api_id=spec.api_id,
        workers=spec.workers,
        config_json=spec.config_json,
        timeout_seconds=spec.timeout_seconds,
        batch_timeout_seconds=spec.batch_timeout_seconds,
        created_time=timestamp(spec.created_ns),
        trace_id=trace_id(spec.traceparent),
        retry_of=spec.retry_of,
    )
    if spec.dead_letter_queue is not None:
        message.dead_letter_queue.arn = spec.dead_letter_queue.arn
        message.dead_letter_queue.max_receive_count = spec.dead_letter_queue.max_receive_count
    _add_options(message, spec.options)
    return message


def _add_options(message: resources_pb2.Job, options: Options) -> None:
    if (retries := options.retries) is not None:
        message.retries.max_attempts = retries.max_attempts
        message.retries.backoff_seconds = retries.backoff_seconds
        message.retries.max_backoff_seconds = retries.max_backoff_seconds
        message.retries.on.extend(retries.on)
    message.split_failed = options.split_failed
    if options.results is not None:
        message.results.s3_path = options.results.s3_path
        message.results.SetInParent()
    if options.scaling is not None:
        message.worker_scaling.batches_per_worker = options.scaling.batches_per_worker
        message.worker_scaling.max_workers = options.scaling.max_workers
    if options.max_failed_percent is not None:
        message.max_failed_percent = options.max_failed_percent
    if options.webhook is not None:
        message.webhook.url = options.webhook.url
    message.queue_name = options.queue_name


def _metrics(tally: Tally) -> resources_pb2.JobMetrics:
    return resources_pb2.JobMetrics(
        succeeded=tally.attempts_succeeded,
        failed=tally.attempts_failed,
        succeeded_seconds=tally.succeeded_seconds,
        bucket_counts=tally.buckets,
        bucket_bounds_seconds=BUCKET_BOUNDS_SECONDS,
    )
