"""The optional fields of a submission, as types. `docs/http-api.md` and the server's `/docs` say what each one does."""

from typing import Any, NotRequired, TypedDict


class FileSelection(TypedDict):
    """Files chosen by path."""

    s3_paths: list[str]
    """Prefixes or whole keys: `s3://bucket/prefix`, or `file:///directory/` where the deployment allows it."""
    includes: NotRequired[list[str]]
    """Globs over whole paths, of which a file must match one."""
    excludes: NotRequired[list[str]]
    """Globs of which a file must match none."""
    batch_size: NotRequired[int]


class WorkerScaling(TypedDict, total=False):
    """As many workers as the number of batches needs: `min(max_workers, ceil(batches / batches_per_worker))`."""

    batches_per_worker: int
    max_workers: int


class DeadLetterQueue(TypedDict):
    """The SQS queue that takes a batch which failed so often."""

    arn: str
    max_receive_count: int


class RetryPolicy(TypedDict, total=False):
    """How a batch that fails is attempted again."""

    max_attempts: int
    """Attempts in all, the first one too."""
    backoff_seconds: float
    """Before the second attempt; doubled before each further one."""
    max_backoff_seconds: float
    on: list[int]
    """The HTTP statuses that are worth it; all when not given."""


class Results(TypedDict):
    """Where the containers' replies are written as well."""

    s3_path: str


class Webhook(TypedDict):
    """Whom to tell that the job is over."""

    url: str
    secret: NotRequired[str]
    """Signs what is sent, as Standard Webhooks describe it."""


class JobFields(TypedDict, total=False):
    """What any submission may ask for. None means not given."""

    config: Any
    """Any JSON value; containers find it in `/cortex/spec/job.json`."""
    timeout: int | None
    """Seconds from the submission until the job is ended."""
    batch_timeout: int | None
    """Seconds that one attempt of a batch may take."""
    sqs_dead_letter_queue: DeadLetterQueue | None
    retries: RetryPolicy | None
    split_failed: bool | None
    """Halve a batch that keeps failing, until the bad items are alone."""
    results: bool | Results | None
    """Keep the containers' replies; see `Client.job_results`."""
    max_failed_percent: float | None
    """Stop the job when more of its batches than this have failed."""
    webhook: Webhook | None
    queue_name: str | None
    """On Kubernetes: the Kueue queue that the job waits in, instead of its API's."""
