"""`cortex resume`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.commands.scale import show_changed
from cortex.cli.connect import connect, find_job


@click.command("resume", cls=Command)
@click.argument("api")
@click.argument("job")
@environment_option
@output_option
def command(api: str, job: str, environment: str | None, output: str) -> None:
    """Go on with a paused job."""
    operator = connect(environment)
    job = find_job(operator, api, job)
    answer = operator.update(api, job, {"paused": False})
    show_changed(answer, f"job {job} goes on", output)
