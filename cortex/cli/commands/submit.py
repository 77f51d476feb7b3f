"""`cortex submit`."""

import itertools
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

from cortex.cli.app import ID_ONLY, environment_option, output_option, quiet_option, quietly
from cortex.cli.commands.watch import watch as watch_job
from cortex.cli.connect import LATEST, connect, same_environment
from cortex.cli.inputs import BYTE_ORDER_MARK, Source, check_lines, opened, read_submission, read_whole
from cortex.cli.job_options import JobOptions, job_options
from cortex.cli.output import json_document
from cortex.cli.sections import SectionCommand
from cortex.cli.told import safe, told
from cortex.operator import Operator
from cortex.submission import MAX_BYTES, Submission, read_items, read_value


@click.command("submit", cls=SectionCommand)
@click.argument("api")
@job_options
@click.option("--dry-run", is_flag=True, help="Check it and list its files; submit nothing.")
@click.option("--watch", is_flag=True, help="Follow the job to its end: `cortex watch`.")
@quiet_option
@click.option("--idempotency-key", metavar="KEY", help="The same key again gives the same job.")
@environment_option
@output_option
def command(
    api: str,
    dry_run: bool,
    watch: bool,
    quiet: bool,
    idempotency_key: str | None,
    environment: str | None,
    output: str,
    **given: Any,
) -> None:
    """Submit a job to an API.

    \b
      cortex submit digits --items images.ndjson --batch-size 32 --watch
      cortex submit digits --delimited s3://bucket/in/ --batch-size 32
      JOB=$(cortex submit digits --files s3://bucket/in/ --batch-size 32 --quiet)

    Items are a JSON array, or JSON values one a line, and reach the container byte for byte. Up to 10 MiB they are
    checked and sent at once; more lines than that, or with --stream all, are sent as they are read, and work starts on
    the first. Files are s3://BUCKET/PREFIX, or file:///PREFIX on the machine of the deployment.
    """
    options = JobOptions(**given)
    options.check()
    if dry_run and (watch or quiet or options.stream):
        raise click.UsageError("--dry-run submits nothing: leave out --watch, --quiet and --stream")
    output = quietly(quiet, output)
    operator = connect(environment)
    if dry_run:
        _dry_run(operator, api, options, output)
        return
    answer = _submit(operator, api, options, idempotency_key, bar=output != ID_ONLY)
    show_submitted(operator, api, answer, environment, output, watch=watch)


def _submit(operator: Operator, api: str, options: JobOptions, key: str | None, *, bar: bool) -> bytes:
    if options.items is None:
        return operator.submit(api, _body(options, None), idempotency_key=key)
    with opened(options.items) as source:
        beginning = b"" if options.stream else source.beginning()
        if options.stream or len(beginning) > MAX_BYTES:
            check_lines(beginning, source)
            read = (piece for piece in itertools.chain([beginning], source.pieces()) if piece)
            return _stream(operator, api, options, key, _with_bar(read, source) if bar else read)
    return operator.submit(api, _body(options, read_items(beginning, source.name)), idempotency_key=key)


def _with_bar(pieces: Generator[bytes], source: Source) -> Generator[bytes]:
    from cortex.cli.views import sending

    return sending.shown(pieces, source.size)


def _stream(operator: Operator, api: str, options: JobOptions, key: str | None, read: Generator[bytes]) -> bytes:
    try:
        with closing(read) as pieces:
            first = next(pieces, b"").removeprefix(BYTE_ORDER_MARK)  # before it, there is no job to begin
            head = _submission(options).head()
            return operator.submit_stream(api, head, itertools.chain([first], pieces), idempotency_key=key)
    except KeyboardInterrupt:
        see = f"cortex get {api} {LATEST}{same_environment(click.get_current_context().params['environment'])}"
        click.echo(f"broken off: if the job had begun, it ends as `enqueue_failed`\n  see it: {see}", err=True)
        raise


def _dry_run(operator: Operator, api: str, options: JobOptions, output: str) -> None:
    items = None
    if options.items is not None:
        with opened(options.items) as source:
            items = read_items(source.whole(), source.name)
    for line in operator.dry_run(api, _body(options, items)):
        text = line.decode()
        if output == "json":
            json_document(json.dumps(text).encode())
        else:
            click.echo(safe(text))


def _body(options: JobOptions, items: bytes | None) -> bytes:
    if options.job is not None:
        return read_submission(options.job)
    return replace(_submission(options), items=items).body()


def _submission(options: JobOptions) -> Submission:
    config = None if options.config is None else read_value("config", _value_or_file(options.config))
    return Submission(options.fields(), config, batch_size=options.batch_size)


def show_submitted(
    operator: Operator, api: str, answer: bytes, environment: str | None, output: str, *, watch: bool
) -> None:
    """Show the job that a request became; with `watch` follow it to its end and end the command as that tells."""
    job = told(answer)
    for warning in job.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    where = f"{api} {job['job_id']}{same_environment(environment)}"
    if output == "json":
        json_document(answer)
    elif output == ID_ONLY:
        click.echo(job["job_id"])
    else:
        what = f", the failed batches of {job['retry_of']}" if job.get("retry_of") else ""
        click.echo(f"submitted job {job['job_id']} to {api}{what}")
    if watch:
        click.get_current_context().exit(watch_job(operator, api, job["job_id"], environment, output))
    elif output == "pretty":
        click.echo(f"watch it: cortex watch {where}")


def _value_or_file(text: str) -> bytes:
    return read_whole(text[1:]) if text.startswith("@") else text.encode(errors="surrogateescape")
