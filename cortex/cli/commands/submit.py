"""`cortex submit`."""

import sys
from pathlib import Path

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.commands.watch import watch as watch_job
from cortex.cli.connect import connect, same_environment
from cortex.cli.output import json_document
from cortex.cli.told import told
from cortex.exceptions import CortexException
from cortex.operator import Operator
from cortex.submission import MAX_BYTES, Submission, read_items, read_value

AT_LEAST_1 = click.IntRange(min=1)


@click.command("submit", cls=Command)
@click.argument("api")
@click.option("--items", "items_from", required=True, metavar="FILE|-", help="The items; `-` for standard input.")
@click.option("--batch-size", type=AT_LEAST_1, metavar="N", required=True, help="Items in a batch.")
@click.option(
    "--workers", type=AT_LEAST_1, metavar="N", default=1, show_default=True, help="Workers that share the batches."
)
@click.option("--config", metavar="JSON|@FILE", help="Any JSON value; containers find it in /cortex/spec/job.json.")
@click.option("--timeout", type=AT_LEAST_1, metavar="SECONDS", help="End the job after so long.")
@click.option(
    "--batch-timeout", type=AT_LEAST_1, metavar="SECONDS", help="Give up an attempt of a batch after so long."
)
@click.option("--watch", is_flag=True, help="Follow the job to its end; see `cortex watch --help`.")
@environment_option
@output_option
def command(
    api: str,
    items_from: str,
    batch_size: int,
    workers: int,
    config: str | None,
    timeout: int | None,
    batch_timeout: int | None,
    watch: bool,
    environment: str | None,
    output: str,
) -> None:
    """Submit a job to an API.

    The items are a JSON array, or JSON values one a line. They reach the container byte for byte as they are written.
    """
    submission = Submission(
        items=read_items(_read(items_from), "standard input" if items_from == "-" else items_from),
        batch_size=batch_size,
        config=None if config is None else read_value("config", _value_or_file(config)),
        fields={"workers": workers, "timeout": timeout, "batch_timeout": batch_timeout},
    )
    operator = connect(environment)
    show_submitted(operator, api, operator.submit(api, submission.body()), environment, output, watch=watch)


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
    return _read(text[1:]) if text.startswith("@") else text.encode(errors="surrogateescape")


def _read(name: str) -> bytes:
    """A file, or standard input; never more than a submission can hold."""
    try:
        if name == "-":
            if sys.stdin is None:  # closed by whoever started us
                raise CortexException("client.file_not_readable", "standard input is closed: give --items FILE")
            text = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CortexException("client.file_not_readable", f"cannot read {name}: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise CortexException(
            "client.submission_too_large",
            f"{name} is larger than {MAX_BYTES // 2**20} MiB, the most that a submission may be: "
            "submit several jobs, or items that name their data",
        )
    return text
