"""`cortex pause`."""

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.commands.scale import show_changed
from cortex.cli.connect import connect, find_job, same_environment


@click.command("pause", cls=Command)
@click.argument("api")
@click.argument("job")
@environment_option
@output_option
def command(api: str, job: str, environment: str | None, output: str) -> None:
    """Hold a running job's batches back.

    Those that containers are working on are finished; its workers stay. `cortex resume` goes on.
    """
    operator = connect(environment)
    job = find_job(operator, api, job)
    answer = operator.update(api, job, {"paused": True})
    show_changed(
        answer, f"job {job} is paused\ngo on: cortex resume {api} {job}{same_environment(environment)}", output
    )
