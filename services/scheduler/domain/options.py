"""What a submission may ask for beyond Cortex: checked, and completed with its defaults."""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.common.errors import CortexError
from services.scheduler.domain.model.options import (
    DeadLetterQueue,
    Options,
    Results,
    RetryPolicy,
    Webhook,
    WorkerScaling,
)
from services.scheduler.domain.numbers import MAX_SECONDS, MAX_WORKERS, whole_number
from services.scheduler.domain.queue_name import check_queue_name

MAX_ATTEMPTS = 1000
"""As many as SQS allows receives."""
DEFAULT_BACKOFF_SECONDS = 1.0
DEFAULT_MAX_BACKOFF_SECONDS = 60.0
MAX_URL = 2048
MAX_SECRET = 512
SECRET_PREFIX = "whsec_"  # noqa: S105  # a prefix, no secret
"""Standard Webhooks: what follows is the secret in base64."""

_STORE_PATH = re.compile(r"(s3://[A-Za-z0-9][A-Za-z0-9._-]*/|file:///).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AskedRetries:
    """`retries` as it was sent. None: not given."""

    max_attempts: int | None = None
    backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    on: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedScaling:
    """`workers` as an object, as it was sent. None: not given."""

    batches_per_worker: int | None = None
    max_workers: int | None = None


@dataclass(frozen=True, slots=True)
class AskedOptions:
    """The options as they were sent. None: not given."""

    retries: AskedRetries | None = None
    split_failed: bool = False
    results: Results | None = None
    scaling: AskedScaling | None = None
    max_failed_percent: float | None = None
    webhook: Webhook | None = None
    queue_name: str = ""
    """`""`: not given."""


def check_options(asked: AskedOptions, queue: DeadLetterQueue | None) -> Options:
    """The options with their defaults. Raises `CortexError` (category INVALID) that names the field."""
    return Options(
        retries=None if asked.retries is None else _retries(asked.retries, queue),
        split_failed=asked.split_failed,
        results=None if asked.results is None else _results(asked.results),
        scaling=None if asked.scaling is None else _scaling(asked.scaling),
        max_failed_percent=None if asked.max_failed_percent is None else _percent(asked.max_failed_percent),
        webhook=None if asked.webhook is None else _webhook(asked.webhook),
        queue_name=check_queue_name("queue_name", asked.queue_name) if asked.queue_name else "",
    )


def _retries(asked: AskedRetries, queue: DeadLetterQueue | None) -> RetryPolicy:
    attempts = asked.max_attempts
    if attempts is None and queue is not None:
        attempts = queue.max_receive_count
    attempts = whole_number("retries.max_attempts", attempts, MAX_ATTEMPTS)
    if queue is not None and attempts != queue.max_receive_count:
        text = (
            f"retries.max_attempts ({attempts}) and sqs_dead_letter_queue.max_receive_count ({queue.max_receive_count})"
            " say the same thing differently: leave retries.max_attempts out"
        )
        raise CortexError("job.conflicting_fields", text)
    for status in asked.on:
        if not 100 <= status <= 599 or status == 200:
            text = f"{status} is not the status of a failed attempt; give HTTP statuses such as 500, 503"
            raise CortexError("job.invalid_status", f"retries.on: {text}")
    backoff = _seconds("retries.backoff_seconds", asked.backoff_seconds, DEFAULT_BACKOFF_SECONDS)
    longest = _seconds("retries.max_backoff_seconds", asked.max_backoff_seconds, DEFAULT_MAX_BACKOFF_SECONDS)
    return RetryPolicy(attempts, backoff, max(backoff, longest), tuple(sorted(set(asked.on))))


def _seconds(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if not 0 <= value <= MAX_SECONDS:  # nor NaN
        text = f"{value:g} is not allowed; give a number of seconds from 0 to {MAX_SECONDS}"
        raise CortexError("job.invalid_seconds", f"{name}: {text}")
    return value


def _results(asked: Results) -> Results:
    if asked.s3_path and not _STORE_PATH.fullmatch(asked.s3_path):
        text = f"{asked.s3_path[:200]!r} is not a place for files, such as s3://bucket/prefix or file:///directory"
        raise CortexError("aws.invalid_s3_path", f"results.s3_path: {text}")
    return asked


def _scaling(asked: AskedScaling) -> WorkerScaling:
    return WorkerScaling(
        whole_number("workers.batches_per_worker", asked.batches_per_worker, 2**53 - 1),
        whole_number("workers.max_workers", asked.max_workers, MAX_WORKERS),
    )


def _percent(value: float) -> float:
    if not 0 <= value <= 100 or math.isnan(value):
        raise CortexError(
            "job.invalid_percent", f"max_failed_percent: {value:g} is not allowed; give a number from 0 to 100"
        )
    return value


def _webhook(asked: Webhook) -> Webhook:
    if not asked.url:
        text = "this key is missing; give the URL to POST to, such as https://example.com/jobs"
        raise CortexError("configreader.must_be_defined", f"webhook.url: {text}")
    if not _is_url(asked.url):
        text = f"{asked.url[:200]!r} is not a URL to POST to, such as https://example.com/jobs"
        raise CortexError("job.invalid_webhook", f"webhook.url: {text}")
    if not asked.secret:
        text = "a secret is needed, with which the receiver checks who sent it"
        raise CortexError("configreader.cannot_be_empty", f"webhook.secret: {text}")
    if len(asked.secret) > MAX_SECRET or not webhook_key(asked):
        text = f"give {MAX_SECRET} characters at most; after the prefix {SECRET_PREFIX} they must be base64"
        raise CortexError("job.invalid_webhook", f"webhook.secret: {text}")
    return asked


def _is_url(text: str) -> bool:
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not parts.username


def webhook_key(webhook: Webhook) -> bytes:
    """The bytes that sign; empty when the secret is not what its prefix says."""
    if not webhook.secret.startswith(SECRET_PREFIX):
        return webhook.secret.encode()
    try:
        return base64.b64decode(webhook.secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        return b""
