"""The options of `cortex submit` that describe a job, and the fields of a submission that they become."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path
from typing import Any

import click

from cortex.cli.sections import section
from cortex.exceptions import CortexException

AT_LEAST_1 = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0)


class Statuses(click.ParamType[tuple[int, ...]]):
    """HTTP statuses with commas between them."""

    name = "statuses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """A text as numbers; which of them make sense is the server's to say."""
        try:
            return value if isinstance(value, tuple) else tuple(int(each) for each in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of HTTP statuses such as 500,503", param, ctx)


_input = section("Input, one of")
_shares = section("Batches and workers")
_failures = section("Failures")
_outcome = section("Results and notice")

OPTIONS = (
    _input("--items", metavar="FILE|-", help="A JSON array, or one item a line; `-` for stdin."),
    _input("--files", metavar="PREFIX", multiple=True, help="Items are the paths of files (repeatable)."),
    _input("--delimited", metavar="PREFIX", multiple=True, help="Items are the JSON values in files (repeatable)."),
    _input("--job", metavar="FILE|-", help="A whole submission as it is, JSON or YAML."),
    _input("--stream", is_flag=True, help="With --items: send each line when it is read."),
    _input("--include", metavar="GLOB", multiple=True, help="With files: only paths like this (repeatable)."),
    _input("--exclude", metavar="GLOB", multiple=True, help="With files: no paths like this (repeatable)."),
    _shares("--batch-size", type=AT_LEAST_1, metavar="N", help="Items in a batch; always needed."),
    _shares("--workers", type=AT_LEAST_1, metavar="N", help="Workers that share the batches; 1 if not given."),
    _shares("--batches-per-worker", type=AT_LEAST_1, metavar="N", help="Instead: a worker for so many batches ..."),
    _shares("--max-workers", type=AT_LEAST_1, metavar="N", help="... and never more workers than this."),
    _shares("--config", metavar="JSON|@FILE", help="Any JSON value; it is in /cortex/spec/job.json."),
    _shares("--queue", metavar="NAME", help="On Kubernetes: the Kueue queue that the job waits in."),
    _shares("--timeout", type=AT_LEAST_1, metavar="SECONDS", help="End the job after so long."),
    _shares("--batch-timeout", type=AT_LEAST_1, metavar="SECONDS", help="Give up an attempt of a batch."),
    _failures("--retries", type=AT_LEAST_1, metavar="N", help="Attempt a failing batch up to N more times."),
    _failures("--backoff", type=SECONDS, metavar="SECONDS", help="Before the first retry; then twice as long each."),
    _failures("--max-backoff", type=SECONDS, metavar="SECONDS", help="The longest wait between two attempts."),
    _failures("--retry-on", type=Statuses(), metavar="500,503", help="Retry these statuses only, and no answer."),
    _failures("--split-failed", is_flag=True, help="Halve what keeps failing, down to the bad items."),
    _failures("--max-failed-percent", type=float, metavar="P", help="Stop the job when more batches failed."),
    _failures("--dead-letter-queue", metavar="ARN", help="SQS queue for batches that failed ..."),
    _failures("--max-receive-count", type=AT_LEAST_1, metavar="N", help="... so many attempts."),
    _outcome("--results", is_flag=True, help="Keep what the container answers: cortex results."),
    _outcome("--results-to", metavar="PREFIX", help="The same, and write it to s3://BUCKET/PREFIX."),
    _outcome("--webhook", metavar="URL", help="POST there when the job is over."),
    _outcome("--webhook-secret-env", metavar="NAME", help="The variable with the secret that signs it."),
)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of them on a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), command)


@dataclass(frozen=True)
class JobOptions:
    """What was given on the command line."""

    items: str | None = None
    files: tuple[str, ...] = ()
    delimited: tuple[str, ...] = ()
    job: str | None = None
    stream: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    batch_size: int | None = None
    workers: int | None = None
    batches_per_worker: int | None = None
    max_workers: int | None = None
    config: str | None = None
    queue: str | None = None
    timeout: int | None = None
    batch_timeout: int | None = None
    retries: int | None = None
    backoff: float | None = None
    max_backoff: float | None = None
    retry_on: tuple[int, ...] | None = None
    split_failed: bool = False
    max_failed_percent: float | None = None
    dead_letter_queue: str | None = None
    max_receive_count: int | None = None
    results: bool = False
    results_to: str | None = None
    webhook: str | None = None
    webhook_secret_env: str | None = None

    def check(self) -> None:
        """Raises `click.UsageError` for options that do not go together."""
        if sum(map(bool, (self.items, self.files, self.delimited, self.job))) != 1:
            raise click.UsageError("give exactly one of --items, --files, --delimited and --job")
        if self.job is not None:
            others = [each.name for each in fields(self) if each.name != "job" and self._is_given(each.name)]
            _refuse(others, f"{_option(*others[:1])}: --job FILE says all of the job; write it there")
            return
        selects = bool(self.files or self.delimited)
        _refuse(not self.batch_size, "--batch-size N is needed")
        _refuse(self.stream and selects, "--stream goes with --items")
        _refuse((self.include or self.exclude) and not selects, "--include and --exclude go with --files, --delimited")
        self._check_pair("batches_per_worker", "max_workers")
        _refuse(self.workers and self.max_workers, "--workers N, or --batches-per-worker N with --max-workers N")
        self._check_pair("dead_letter_queue", "max_receive_count")
        queue = self.dead_letter_queue is not None
        _refuse(self.retries and queue, "--max-receive-count says how often; leave out --retries")
        for name in ("backoff", "max_backoff", "retry_on"):
            lonely = self._is_given(name) and not (self.retries or queue)
            _refuse(lonely, f"{_option(name)} needs --retries N, or --dead-letter-queue")
        _refuse(self.webhook_secret_env and not self.webhook, "--webhook-secret-env needs --webhook URL")

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) not in (None, False, ())

    def _check_pair(self, one: str, other: str) -> None:
        if self._is_given(one) != self._is_given(other):
            raise click.UsageError(f"{_option(one)} and {_option(other)} go together")

    def fields(self) -> dict[str, object]:
        """The fields of the submission but `config` and items. Raises `CortexException` for what cannot be used."""
        selections = {"file_path_lister": self.files, "delimited_files": self.delimited}
        return {
            "workers": self._scaling() or self.workers or 1,
            "timeout": self.timeout,
            "batch_timeout": self.batch_timeout,
            "sqs_dead_letter_queue": self.dead_letter_queue
            and {"arn": self.dead_letter_queue, "max_receive_count": self.max_receive_count},
            "retries": self._retries(),
            "split_failed": self.split_failed or None,
            "max_failed_percent": self.max_failed_percent,
            "queue_name": self.queue,
            "results": {"s3_path": self.results_to} if self.results_to else self.results or None,
            "webhook": self.webhook and _given(url=self.webhook, secret=_secret(self.webhook_secret_env)),
            **{name: self._selection(prefixes) for name, prefixes in selections.items() if prefixes},
        }

    def _scaling(self) -> Mapping[str, object]:
        return _given(batches_per_worker=self.batches_per_worker, max_workers=self.max_workers)

    def _retries(self) -> Mapping[str, object] | None:
        attempts = None if self.retries is None else self.retries + 1
        return (
            _given(
                max_attempts=attempts,
                backoff_seconds=self.backoff,
                max_backoff_seconds=self.max_backoff,
                on=self.retry_on,
            )
            or None
        )

    def _selection(self, prefixes: tuple[str, ...]) -> Mapping[str, object]:
        for prefix in prefixes:
            _check_prefix(prefix)
        lists = _given(includes=self.include or None, excludes=self.exclude or None)
        return {"s3_paths": prefixes, **lists, "batch_size": self.batch_size}


def _refuse(wrong: object, message: str) -> None:
    if wrong:
        raise click.UsageError(message)


def _option(*names: str) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _secret(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (secret := os.environ.get(variable)):
        raise CortexException(
            "client.no_secret", f"the environment variable {variable} is not set: it holds the secret"
        )
    return secret


def _check_prefix(prefix: str) -> None:
    """Whose files a bare path means cannot be known: this machine's, or those of the one that reads them."""
    if "://" in prefix:
        return
    here = f"file://{Path(prefix).absolute()}" + ("/" if prefix.endswith("/") else "")
    raise CortexException(
        "client.invalid_path",
        f"{prefix} is not a path that a deployment can read: give s3://bucket/prefix, or {here} for files on the "
        "machine where it runs (below a directory that its `cortex up --input-root` allows)",
    )
