"""`cortex version`."""

import json

import click

from cortex.cli.app import Command, output_option
from cortex.cli.output import json_document
from cortex.version import version


@click.command("version", cls=Command)
@output_option
def command(output: str) -> None:
    """Show the version."""
    if output == "json":
        json_document(json.dumps({"version": version()}).encode())
    else:
        click.echo(f"cortex {version()}")
