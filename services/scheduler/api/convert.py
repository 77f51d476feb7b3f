"""Between protobuf messages and the scheduler's values."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from cortex.batch.v1 import batch_service_pb2, resources_pb2
from services.common.errors import CortexError
from services.common.telemetry import trace_id
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import BatchState
from services.scheduler.domain.model.job import BUCKET_BOUNDS_SECONDS, JobSpec, JobStatus, RequestKey, Tally
from services.scheduler.domain.model.options import DeadLetterQueue, Options, Results, Webhook
from services.scheduler.domain.options import AskedOptions, AskedRetries, AskedScaling
from services.scheduler.domain.submission import FileSelection, ItemList, ItemStream, Submission
from services.scheduler.usecases.output.batch_pages import BatchView
from services.scheduler.usecases.running.job_view import JobView

_BATCH_TOKEN = re.compile("[0-9]{1,18}")
MAX_REQUEST_ID = 255
"""Characters of a request's id."""

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


def submission(request: batch_service_pb2.SubmitJobRequest) -> Submission:
    """What a client asks for."""
    return Submission(
        workers=request.workers if request.HasField("workers") else None,
        timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else None,
        batch_timeout_seconds=request.batch_timeout_seconds if request.HasField("batch_timeout_seconds") else None,
        dead_letter_queue=(
            _dead_letter_queue(request.sqs_dead_letter_queue) if request.HasField("sqs_dead_letter_queue") else None
        ),
        config_json=request.config_json,
        item_list=(
            ItemList(request.item_list.items_json, _batch_size(request.item_list))
            if request.HasField("item_list")
            else None
        ),
        file_path_lister=_files(request.file_path_lister) if request.HasField("file_path_lister") else None,
        delimited_files=_files(request.delimited_files) if request.HasField("delimited_files") else None,
        options=_options(request),
    )


def _options(request: batch_service_pb2.SubmitJobRequest) -> AskedOptions:
    percent = request.max_failed_percent if request.HasField("max_failed_percent") else None
    return AskedOptions(
        retries=_retries(request.retries) if request.HasField("retries") else None,
        split_failed=request.split_failed,
        results=Results(request.results.s3_path) if request.HasField("results") else None,
        scaling=_scaling(request.worker_scaling) if request.HasField("worker_scaling") else None,
        max_failed_percent=percent,
        webhook=Webhook(request.webhook.url, request.webhook.secret) if request.HasField("webhook") else None,
    )


def _retries(retries: resources_pb2.RetryPolicy) -> AskedRetries:
    return AskedRetries(
        max_attempts=retries.max_attempts if retries.HasField("max_attempts") else None,
        backoff_seconds=retries.backoff_seconds if retries.HasField("backoff_seconds") else None,
        max_backoff_seconds=retries.max_backoff_seconds if retries.HasField("max_backoff_seconds") else None,
        on=tuple(retries.on),
    )


def _scaling(scaling: resources_pb2.WorkerScaling) -> AskedScaling:
    return AskedScaling(
        batches_per_worker=scaling.batches_per_worker if scaling.HasField("batches_per_worker") else None,
        max_workers=scaling.max_workers if scaling.HasField("max_workers") else None,
    )


def request_key(request: batch_service_pb2.SubmitJobRequest | batch_service_pb2.RetryJobRequest) -> RequestKey | None:
    """What makes repeating the request safe, if its client wants that."""
    if not request_id(request):
        return None
    asked = request.DESCRIPTOR.full_name.encode() + request.SerializeToString(deterministic=True)
    return RequestKey(request.request_id, hashlib.sha256(asked).digest())


def stream_submission(first: batch_service_pb2.SubmitJobStreamRequest) -> Submission:
    """What a client asks for with a stream of items."""
    if not first.HasField("job"):
        text = "the first message of a stream of items must tell the job: it has no `job`"
        raise CortexError("configreader.must_be_defined", text)
    stream = ItemStream(first.batch_size if first.HasField("batch_size") else None)
    return replace(submission(first.job), stream=stream)


def asked_with_stream(first: batch_service_pb2.SubmitJobStreamRequest) -> bytes:
    """All that a client asks for beside the items, the id of its request apart."""
    asked = batch_service_pb2.SubmitJobStreamRequest(job=first.job)
    if first.HasField("batch_size"):
        asked.batch_size = first.batch_size
    asked.job.ClearField("request_id")
    return asked.SerializeToString(deterministic=True)


def request_id(request: batch_service_pb2.SubmitJobRequest | batch_service_pb2.RetryJobRequest) -> str:
    """The client's id for the request; `""` for none."""
    if len(request.request_id) > MAX_REQUEST_ID:
        raise CortexError("job.invalid_request_id", f"request_id: it may have {MAX_REQUEST_ID} characters at most")
    return request.request_id


def _dead_letter_queue(queue: resources_pb2.DeadLetterQueue) -> DeadLetterQueue:
    if not queue.HasField("arn"):
        text = "this key is missing; give the ARN of an SQS queue"
        raise CortexError("configreader.must_be_defined", f"sqs_dead_letter_queue.arn: {text}")
    if not queue.HasField("max_receive_count"):
        text = "this key is missing; give a whole number >= 1"
        raise CortexError("configreader.must_be_defined", f"sqs_dead_letter_queue.max_receive_count: {text}")
    return DeadLetterQueue(queue.arn, queue.max_receive_count)


def _files(selection: batch_service_pb2.FileSelection) -> FileSelection:
    return FileSelection(
        tuple(selection.s3_paths), tuple(selection.includes), tuple(selection.excludes), _batch_size(selection)
    )


def _batch_size(source: batch_service_pb2.ItemList | batch_service_pb2.FileSelection) -> int | None:
    return source.batch_size if source.HasField("batch_size") else None


def batch_states(wanted: Iterable[int]) -> frozenset[BatchState]:
    """The states that a client asks for. When it names none: all but those of which the halves are listed."""
    chosen = set(wanted)
    states = frozenset(state for state, number in BATCH_STATE.items() if number in chosen)
    return states or frozenset(BatchState) - {BatchState.SPLIT}


def first_batch(page_token: str) -> int:
    """Where a page of batches begins. Raises `CortexError` for a token that was not given out."""
    if not page_token:
        return 0
    if not _BATCH_TOKEN.fullmatch(page_token):
        text = f"page_token: {page_token[:50]!r} is not the next_page_token of an earlier page"
        raise CortexError("job.invalid_page_token", text)
    return int(page_token)


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
    message.paused = view.job.control.paused
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
    if view.job.notice is not None:
        message.webhook.attempts = view.job.notice.attempts
        message.webhook.error = view.job.notice.error
        if view.job.notice.delivered_ns is not None:
            message.webhook.delivered_time.CopyFrom(timestamp(view.job.notice.delivered_ns))
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


def _metrics(tally: Tally) -> resources_pb2.JobMetrics:
    return resources_pb2.JobMetrics(
        succeeded=tally.attempts_succeeded,
        failed=tally.attempts_failed,
        succeeded_seconds=tally.succeeded_seconds,
        bucket_counts=tally.buckets,
        bucket_bounds_seconds=BUCKET_BOUNDS_SECONDS,
    )
