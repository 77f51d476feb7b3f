"""`cortex delete`."""

import json
import sys

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job
from cortex.cli.output import json_document
from cortex.cli.told import told
from cortex.operator import IN_PROGRESS, Operator


@click.command("delete", cls=Command)
@click.argument("api")
@click.argument("job", required=False)
@click.option("-c", "--keep-cache", is_flag=True, hidden=True, help="Cortex's CLI has it; nothing is cached here.")
@click.option("-f", "--force", is_flag=True, help="Do not ask, though jobs of the API are running.")
@environment_option
@output_option
def command(api: str, job: str | None, keep_cache: bool, force: bool, environment: str | None, output: str) -> None:
    """Delete an API, or stop a job.

    With a JOB that job is stopped and stays known. Without one the API is deleted, and its jobs are stopped; where some
    are running, you are asked first if you are at a terminal.
    """
    operator = connect(environment)
    # `cortex delete API $JOB` with an empty variable reads like this too.
    if job is None and not force and sys.stdin.isatty() and (running := _running_jobs(operator, api)):
        jobs = "a running job" if running == 1 else f"{running} running jobs"
        click.confirm(f"{api} has {jobs}. Stop and delete?", abort=True, err=True)
    if job is None:
        answer = operator.delete(api, keep_cache=keep_cache)
    else:
        answer = operator.stop(api, find_job(operator, api, job))
    if output == "json":
        json_document(answer)
    else:
        click.echo(told(answer)["message"])


def _running_jobs(operator: Operator, api: str) -> int:
    """How many of the API's latest jobs are not over."""
    jobs = json.loads(operator.api(api))[0].get("batch_job_statuses") or []
    return sum(each["status"] in IN_PROGRESS for each in jobs)
