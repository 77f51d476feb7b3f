"""`cortex env`."""

import json

import click

from cortex import environments
from cortex.cli.app import Command, output_option
from cortex.cli.output import console, json_document

long_output_option = click.option(
    "--output", type=click.Choice(["pretty", "json"]), default="pretty", help="With `json` nothing but JSON is printed."
)


@click.group("env")
def command() -> None:
    """Choose which deployment to talk to.

    Environments are kept in ~/.cortex/cli.yaml, or in $CORTEX_CLI_CONFIG_DIR/cli.yaml. Where none is configured, it is
    the deployment which `cortex up` runs on this machine.
    """


@command.command("list", cls=Command)
@output_option
def list_(output: str) -> None:
    """List the environments."""
    listed = environments.load().as_dict()
    if output == "json":
        json_document(json.dumps(listed).encode())
        return
    from cortex.cli.views import tables

    tables.print_environments(console(), listed)


@command.command("configure", cls=Command)
@click.argument("name", default="local")
@click.option(
    "-o", "--operator-endpoint", prompt="operator endpoint", metavar="URL", help="Such as http://127.0.0.1:8888."
)
@long_output_option
def configure(name: str, operator_endpoint: str, output: str) -> None:
    """Add an environment, or change one."""
    environment = environments.Environment.of(name, operator_endpoint)
    environments.save(environments.load().with_environment(environment))
    _tell(f"configured {name}: {environment.operator_endpoint}", output)


@command.command("default", cls=Command)
@click.argument("name")
@output_option
def default(name: str, output: str) -> None:
    """Make an environment the one that is meant when none is named."""
    environments.save(environments.load().with_default(name))
    _tell(f"{name} is the default environment now", output)


@command.command("delete", cls=Command)
@click.argument("name")
@output_option
def delete(name: str, output: str) -> None:
    """Forget an environment. Its deployment is not touched."""
    environments.save(environments.load().without(name))
    _tell(f"deleted environment {name}", output)


def _tell(message: str, output: str) -> None:
    if output == "json":
        json_document(json.dumps({"message": message}).encode())
    else:
        click.echo(message)
