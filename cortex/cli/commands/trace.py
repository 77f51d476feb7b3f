"""`cortex trace`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job
from cortex.cli.output import console, json_document
from cortex.cli.told import told

PLAIN_WIDTH = 120
"""Columns where there is no terminal to fit."""


@click.command("trace", cls=Command)
@click.argument("api")
@click.argument("job")
@environment_option
@output_option
def command(api: str, job: str, environment: str | None, output: str) -> None:
    """Draw a job's trace as a waterfall.

    Every line is something that one of the services did for the job, from the request to the last answer of a
    container. Of many alike, such as the deliveries of batches, the first ones are drawn and those that failed.
    """
    operator = connect(environment)
    answer = operator.trace(api, find_job(operator, api, job))
    if output == "json":
        json_document(answer)
        return
    from cortex.cli.views import waterfall

    width = console().width if console().is_terminal else PLAIN_WIDTH
    waterfall.print_trace(console(), told(answer), width)
