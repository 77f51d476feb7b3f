"""`cortex deploy`."""

from pathlib import Path

import click

from cortex._client import config_file_name, read_config_file
from cortex.cli.app import Command, environment_option, output_option
from cortex.cli.connect import connect
from cortex.cli.output import json_document
from cortex.cli.told import told
from cortex.exceptions import CortexException


@click.command("deploy", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), default=Path("cortex.yaml"))
@click.option("-f", "--force", is_flag=True, help="Deploy anew even where nothing changed.")
@click.option("-y", "--yes", is_flag=True, hidden=True, help="Cortex's CLI asks; this one does not.")
@environment_option
@output_option
def command(file: Path, force: bool, yes: bool, environment: str | None, output: str) -> None:
    """Deploy the APIs of a configuration file.

    FILE is YAML that holds a list of APIs, ./cortex.yaml if not given. A file with a mistake in it changes nothing. On
    this machine the commands of its containers run in the file's directory.
    """
    del yes
    answer = connect(environment).deploy(read_config_file(file), config_file_name(file), force=force)
    results = told(answer)
    if output == "json":
        json_document(answer)
    for result in results:
        if result.get("error"):
            raise CortexException("client.deploy_failed", result["error"])
        if output != "json":
            click.echo(result["message"])
            click.echo(f"  endpoint: {result['api']['endpoint']}")
