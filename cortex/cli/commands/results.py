"""`cortex results`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job
from cortex.cli.output import json_lines


@click.command("results", cls=Command)
@click.argument("api")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@click.option("--errors", is_flag=True, help="The failed batches instead.")
@environment_option
@output_option
def command(api: str, job: str, follow: bool, errors: bool, environment: str | None, output: str) -> None:
    """Print what a job's containers answered.

    A JSON document a line, in the order of the batches: `{"batch": INDEX, "reply": REPLY}`. Only jobs keep replies that
    were submitted with --results. The failed batches come with their reasons and items.
    """
    del output  # it is JSON in any case; errors are too with `json`
    if errors and follow:
        raise click.UsageError("--errors shows the batches that have failed until now: leave out --follow")
    operator = connect(environment)
    job = find_job(operator, api, job)
    json_lines(operator.errors(api, job) if errors else operator.results(api, job, follow=follow), at_once=follow)
