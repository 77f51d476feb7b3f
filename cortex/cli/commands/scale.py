"""`cortex scale`, and what `cortex pause` and `cortex resume` share with it."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job
from cortex.cli.job_options import AT_LEAST_1
from cortex.cli.output import json_document
from cortex.cli.views import words


@click.command("scale", cls=Command)
@click.argument("api")
@click.argument("job")
@click.argument("workers", type=AT_LEAST_1)
@environment_option
@output_option
def command(api: str, job: str, workers: int, environment: str | None, output: str) -> None:
    """Give a running job another number of workers.

    Workers that are too many finish what they hold, or hand it back.
    """
    operator = connect(environment)
    job = find_job(operator, api, job)
    answer = operator.update(api, job, {"workers": workers})
    show_changed(answer, f"job {job} has {words.count(workers, 'worker')} now", output)


def show_changed(answer: bytes, message: str, output: str) -> None:
    """Say what became of a job."""
    if output == "json":
        json_document(answer)
    else:
        click.echo(message)
