"""A submission's fields: what they may be, and what this deployment can do with them.

Whatever is wrong with the fields themselves is said first, so that a user mends a request once. Only then comes
what this deployment cannot do. What is inside `item_list.items` is checked where it is split.
"""

import re
from dataclasses import dataclass, field

from services.common import json_text
from services.common.errors import CortexError
from services.scheduler.domain.globs import Files
from services.scheduler.domain.model.item_stream import Source, SourceKind
from services.scheduler.domain.model.options import DeadLetterQueue, Options
from services.scheduler.domain.numbers import MAX_SECONDS, check_workers, whole_number
from services.scheduler.domain.options import AskedOptions, check_options

MAX_BATCH_SIZE = 2**53 - 1
"""The largest whole number that every JSON client can write; "all in one batch" is fine."""

MAX_RECEIVE_COUNT = 1000
"""SQS allows no more."""

_SQS_ARN = re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}(\.fifo)?")
_PATH = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]*/.*|file:///.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ItemList:
    """Items given in the request itself."""

    items_json: str
    """A JSON array as text."""
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class FileSelection:
    """Files chosen by path."""

    s3_paths: tuple[str, ...]
    includes: tuple[str, ...]
    excludes: tuple[str, ...]
    batch_size: int | None


@dataclass(frozen=True, slots=True)
class ItemStream:
    """Items that the client sends one after the other."""

    batch_size: int | None


@dataclass(frozen=True, slots=True)
class Submission:
    """What was asked for. None: not given."""

    workers: int | None
    timeout_seconds: int | None
    batch_timeout_seconds: int | None
    dead_letter_queue: DeadLetterQueue | None
    config_json: str
    """JSON text, `""` when not given."""
    item_list: ItemList | None
    file_path_lister: FileSelection | None
    delimited_files: FileSelection | None
    options: AskedOptions = field(default_factory=AskedOptions)
    stream: ItemStream | None = None
    """Not None: the items come with the request, after all of this."""


@dataclass(frozen=True, slots=True)
class ValidSubmission:
    """A submission whose fields obey every rule and that this deployment can carry out."""

    workers: int | None
    """None: `options.scaling` says it."""
    timeout_seconds: int | None
    batch_timeout_seconds: int | None
    dead_letter_queue: DeadLetterQueue | None
    config_json: str
    """JSON text byte for byte, `""` when not given (or null)."""
    options: Options
    batch_size: int
    items_json: str
    """`""` when there is a source."""
    source: Source | None


def validate(submission: Submission) -> ValidSubmission:
    """Check the fields.

    Raises `CortexError` (category INVALID) with a kind of the contract. Whether files and the dead letter queue are
    there is not known here.
    """
    key, given = _only_input(submission)
    workers = _workers(submission)
    for name, seconds in (
        ("timeout", submission.timeout_seconds),
        ("batch_timeout", submission.batch_timeout_seconds),
    ):
        if seconds is not None:
            whole_number(name, seconds, MAX_SECONDS)
    if submission.dead_letter_queue is not None:
        _check_dead_letter_queue(submission.dead_letter_queue)
    options = check_options(submission.options, submission.dead_letter_queue)
    batch_size = whole_number(f"{key}.batch_size" if key else "batch_size", given.batch_size, MAX_BATCH_SIZE)
    source = _source(key, given) if not isinstance(given, ItemList) else None
    config_json = _checked_config(submission.config_json)
    return ValidSubmission(
        workers=workers,
        timeout_seconds=submission.timeout_seconds,
        batch_timeout_seconds=submission.batch_timeout_seconds,
        dead_letter_queue=submission.dead_letter_queue,
        config_json=config_json,
        options=options,
        batch_size=batch_size,
        items_json=given.items_json if isinstance(given, ItemList) else "",
        source=source,
    )


def _workers(submission: Submission) -> int | None:
    """None: as many as the number of batches needs."""
    if submission.options.scaling is None:
        return check_workers(submission.workers)
    if submission.workers is not None:
        text = "workers is given as a number and as an object: give one of them"
        raise CortexError("job.conflicting_fields", text)
    return None


def _only_input(submission: Submission) -> tuple[str, ItemList | FileSelection | ItemStream]:
    """The input, and the key that it is under; `""` for a stream."""
    inputs = {
        "item_list": submission.item_list,
        "file_path_lister": submission.file_path_lister,
        "delimited_files": submission.delimited_files,
    }
    given = [(key, source) for key, source in inputs.items() if source is not None]
    if submission.stream is not None:
        if given:
            text = f"{given[0][0]} is given with a stream of items: the items come with the stream, leave it out"
            raise CortexError("job.conflicting_fields", text)
        return "", submission.stream
    if not given:
        text = f"no input is given: give exactly one of {', '.join(inputs)}"
        raise CortexError("job.specify_exactly_one_key", text)
    if len(given) > 1:
        found = " and ".join(key for key, _ in given)
        text = f"{found} are given together: give exactly one of {', '.join(inputs)}"
        raise CortexError("job.conflicting_fields", text)
    return given[0]


def _check_dead_letter_queue(queue: DeadLetterQueue) -> None:
    place = "sqs_dead_letter_queue"
    if not queue.arn:
        raise CortexError(
            "configreader.cannot_be_empty", f'{place}.arn: "" is not allowed; give the ARN of an SQS queue'
        )
    if not _SQS_ARN.fullmatch(queue.arn):
        example = "arn:aws:sqs:us-west-2:123456789012:my-queue"
        text = f"{queue.arn[:200]!r} is not the ARN of an SQS queue, such as {example}"
        raise CortexError("aws.invalid_sqs_arn", f"{place}.arn: {text}")
    whole_number(f"{place}.max_receive_count", queue.max_receive_count, MAX_RECEIVE_COUNT)


def _source(key: str, files: FileSelection | ItemStream) -> Source:
    if isinstance(files, ItemStream):
        return Source(SourceKind.STREAM)
    if not files.s3_paths:
        text = "the list is empty; give at least one path, such as s3://bucket/prefix"
        raise CortexError("configreader.too_few_elements", f"{key}.s3_paths: {text}")
    for index, path in enumerate(files.s3_paths):
        if not _PATH.fullmatch(path):
            text = f"{path[:200]!r} is not an S3 path, such as s3://bucket/prefix (s3://bucket/ for a whole bucket)"
            text += ", nor file:// and the path of a file or directory"
            raise CortexError("aws.invalid_s3_path", f"{key}.s3_paths[{index}]: {text}")
    for name, globs in (("includes", files.includes), ("excludes", files.excludes)):
        for index, glob in enumerate(globs):
            if not glob:
                text = '"" is not allowed; give a glob, such as s3://bucket/**.json'
                raise CortexError("configreader.cannot_be_empty", f"{key}.{name}[{index}]: {text}")
    Files(files.includes, files.excludes, key)  # checks the globs
    return Source(SourceKind(key), files.s3_paths, files.includes, files.excludes)


def _checked_config(text: str) -> str:
    """The text when it is JSON; `""` for null."""
    if text.strip(" \t\r\n") in ("", "null"):
        return ""
    data = text.encode(errors="surrogatepass")
    json_text.check_utf8(data, "config")
    json_text.check_depth(data, "config")  # before the decoder, which recurses
    json_text.check_value(data, "config")
    return text
