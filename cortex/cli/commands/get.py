"""`cortex get`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job, same_environment
from cortex.cli.output import console, json_document
from cortex.cli.told import told


@click.command("get", cls=Command)
@click.argument("api", required=False)
@click.argument("job", required=False)
@environment_option
@output_option
def command(api: str | None, job: str | None, environment: str | None, output: str) -> None:
    """Show the APIs, one API and its jobs, or one job."""
    operator = connect(environment)
    if api is None:
        answer = operator.apis()
    elif job is None:
        answer = operator.api(api)
    else:
        answer = operator.job(api, find_job(operator, api, job))
    if output == "json":
        json_document(answer)
        return
    from cortex.cli.views import job as job_view
    from cortex.cli.views import tables

    if api is None:
        tables.print_apis(console(), told(answer))
    elif job is None:
        tables.print_api(console(), told(answer)[0], same_environment(environment))
    else:
        job_view.print_job(console(), told(answer))
