"""`cortex logs`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job
from cortex.cli.output import json_document
from cortex.cli.told import told

COLOURS = ("cyan", "green", "yellow", "blue", "magenta")


@click.command("logs", cls=Command)
@click.argument("api")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@environment_option
@output_option
def command(api: str, job: str, follow: bool, environment: str | None, output: str) -> None:
    """Show what a job's containers wrote.

    A line each: `WORKER/CONTAINER | MESSAGE`, oldest first within a container. Workers are numbered from 0. What the
    system itself did for a worker is there as the container `dequeuer`.
    """
    operator = connect(environment)
    width = 0
    for line in operator.logs(api, find_job(operator, api, job), follow=follow):
        if output == "json":
            json_document(line)
            continue
        entry = told(line)
        source = f"{entry['worker']}/{entry['container']}"
        width = max(width, len(source))
        prefix = click.style(f"{source:<{width}} |", fg=COLOURS[entry["worker"] % len(COLOURS)])
        click.echo(f"{prefix} {entry['message']}")
