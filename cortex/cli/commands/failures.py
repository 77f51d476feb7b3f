"""`cortex failures`."""

from typing import Any

import click

from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect, find_job, same_environment
from cortex.cli.output import console, json_document
from cortex.cli.told import told
from cortex.operator import Operator

LARGEST_PAGE = 1000


@click.command("failures", cls=Command)
@click.argument("api")
@click.argument("job")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="Show the first so many."
)
@environment_option
@output_option
def command(api: str, job: str, limit: int, environment: str | None, output: str) -> None:
    """Show a job's failed batches.

    Each with the reason and the beginning of its items. With `--output json` all of them, the items byte for byte: a
    JSON document a line for each page of them.
    """
    operator = connect(environment)
    job = find_job(operator, api, job)
    if output == "json":
        for page in operator.batches(api, job, state="failed", page_size=LARGEST_PAGE):
            json_document(page)
        return
    from cortex.cli.views import tables

    batches = _first(operator, api, job, limit + 1)
    if not batches:
        click.echo("no batches failed")
        return
    tables.print_batches(console(), batches[:limit])
    where = f"{api} {job}{same_environment(environment)}"
    if len(batches) > limit:
        click.echo(f"there are more: cortex failures {where} --limit {10 * limit}", err=True)
    click.echo(f"run them again: cortex retry {where}", err=True)


def _first(operator: Operator, api: str, job: str, count: int) -> list[dict[str, Any]]:
    batches: list[dict[str, Any]] = []
    for page in operator.batches(api, job, state="failed", page_size=min(count, LARGEST_PAGE)):
        batches += told(page)["batches"]
        if len(batches) >= count:
            break
    return batches[:count]
