"""What clients ask, from protobuf messages."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

from cortex.batch.v1 import batch_service_pb2, resources_pb2
from services.common.errors import CortexError
from services.scheduler.api.to_proto import BATCH_STATE
from services.scheduler.domain.model.batch import BatchState
from services.scheduler.domain.model.job import RequestKey
from services.scheduler.domain.model.options import DeadLetterQueue, Results, Webhook
from services.scheduler.domain.options import AskedOptions, AskedRetries, AskedScaling
from services.scheduler.domain.submission import FileSelection, ItemList, ItemStream, Submission

_BATCH_TOKEN = re.compile("[0-9]{1,18}")

MAX_REQUEST_ID = 255
"""Characters of a request's id."""


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
        queue_name=request.queue_name,
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
