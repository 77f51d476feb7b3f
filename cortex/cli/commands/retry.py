"""`cortex retry`."""

import click

from cortex.cli.app import Command, environment_option, output_option, quiet_option, quietly
from cortex.cli.commands.submit import show_submitted
from cortex.cli.connect import connect, find_job
from cortex.cli.job_options import AT_LEAST_1


@click.command("retry", cls=Command)
@click.argument("api")
@click.argument("job")
@click.option("--workers", type=AT_LEAST_1, metavar="N", help="Workers that share the batches; else as many as before.")
@click.option("--watch", is_flag=True, help="Follow the new job to its end; see `cortex watch --help`.")
@quiet_option
@environment_option
@output_option
def command(
    api: str, job: str, workers: int | None, watch: bool, quiet: bool, environment: str | None, output: str
) -> None:
    """Run a job's failed batches again.

    They become a new job, once the old one is over. It has the old one's configuration and limits, and runs the API
    as it is deployed now.
    """
    output = quietly(quiet, output)
    operator = connect(environment)
    answer = operator.retry(api, find_job(operator, api, job), workers=workers)
    show_submitted(operator, api, answer, environment, output, watch=watch)
