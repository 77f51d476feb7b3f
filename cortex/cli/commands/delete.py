"""`cortex delete`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect
from cortex.cli.output import json_document
from cortex.cli.told import told


@click.command("delete", cls=Command)
@click.argument("api")
@click.argument("job", required=False)
@click.option("-c", "--keep-cache", is_flag=True, hidden=True, help="Cortex's CLI has it; nothing is cached here.")
@click.option("-f", "--force", is_flag=True, hidden=True, help="Cortex's CLI asks; this one does not.")
@environment_option
@output_option
def command(api: str, job: str | None, keep_cache: bool, force: bool, environment: str | None, output: str) -> None:
    """Delete an API, or stop a job.

    With a JOB that job is stopped and stays known. Without one the API is deleted, and its jobs are stopped.
    """
    del force
    operator = connect(environment)
    answer = operator.delete(api, keep_cache=keep_cache) if job is None else operator.stop(api, job)
    if output == "json":
        json_document(answer)
    else:
        click.echo(told(answer)["message"])
