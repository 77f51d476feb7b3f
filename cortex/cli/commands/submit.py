"""`cortex submit`."""

import itertools
import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

from cortex.cli.app import environment_option, output_option
from cortex.cli.commands.watch import watch as watch_job
from cortex.cli.connect import connect, same_environment
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
@click.option("--idempotency-key", metavar="KEY", help="The same key again gives the same job.")
@environment_option
@output_option
def command(
    api: str,
    dry_run: bool,
    watch: bool,
    idempotency_key: str | None,
    environment: str | None,
    output: str,
    **given: Any,
) -> None:
    """Submit a job to an API.

    \b
      cortex submit digits --items images.ndjson --batch-size 32 --watch
      cortex submit digits --delimited s3://bucket/in/ --batch-size 32

    Items are a JSON array, or JSON values one a line, and reach the container byte for byte. Up to 10 MiB they are
    checked and sent at once; more lines than that, or with --stream all, are sent as they are read, and work starts on
    the first. Files are s3://BUCKET/PREFIX, or file:///PREFIX on the machine of the deployment.
    """
    options = JobOptions(**given)
    options.check()
    if dry_run and (watch or options.stream):
        raise click.UsageError("--dry-run submits nothing: leave out --watch and --stream")
    operator = connect(environment)
    if dry_run:
        _dry_run(operator, api, options, output)
        return
    answer = _submit(operator, api, options, idempotency_key)
    show_submitted(operator, api, answer, environment, output, watch=watch)


def _submit(operator: Operator, api: str, options: JobOptions, key: str | None) -> bytes:
    if options.items is None:
        return operator.submit(api, _body(options, None), idempotency_key=key)
    with opened(options.items) as source:
        beginning = b"" if options.stream else source.beginning()
        if options.stream or len(beginning) > MAX_BYTES:
            check_lines(beginning, source)
            return _stream(operator, api, options, key, beginning, source)
    return operator.submit(api, _body(options, read_items(beginning, source.name)), idempotency_key=key)


def _stream(
    operator: Operator, api: str, options: JobOptions, key: str | None, beginning: bytes, source: Source
) -> bytes:
    from cortex.cli.views import sending

    read = (piece for piece in itertools.chain([beginning], source.pieces()) if piece)
    try:
        with closing(sending.shown(read, source.size)) as pieces:
            first = next(pieces, b"").removeprefix(BYTE_ORDER_MARK)  # before it, there is no job to begin
            head = _submission(options).head()
            return operator.submit_stream(api, head, itertools.chain([first], pieces), idempotency_key=key)
    except KeyboardInterrupt:
        click.echo("broken off: if the job had begun, it ends as `enqueue_failed`", err=True)
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
    else:
        what = f", the failed batches of {job['retry_of']}" if job.get("retry_of") else ""
        click.echo(f"submitted job {job['job_id']} to {api}{what}")
    if watch:
        click.get_current_context().exit(watch_job(operator, api, job["job_id"], environment, output))
    elif output != "json":
        click.echo(f"watch it: cortex watch {where}")


def _value_or_file(text: str) -> bytes:
    return read_whole(text[1:]) if text.startswith("@") else text.encode(errors="surrogateescape")
