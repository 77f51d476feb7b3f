"""The commands by name, and what all of them share: the environment, the output format, errors and exit codes."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from cortex.cli.told import safe
from cortex.exceptions import CortexException

COMMANDS = {
    "up": "Run the whole system on this machine.",
    "deploy": "Deploy the APIs of a configuration file.",
    "get": "Show the APIs, one API and its jobs, or one job.",
    "submit": "Submit a job to an API.",
    "watch": "Follow a job to its end.",
    "logs": "Show what a job's containers wrote.",
    "results": "Print what a job's containers answered.",
    "failures": "Show a job's failed batches.",
    "retry": "Run a job's failed batches again.",
    "scale": "Give a running job another number of workers.",
    "pause": "Hold a running job's batches back.",
    "resume": "Go on with a paused job.",
    "trace": "Draw a job's trace as a waterfall.",
    "delete": "Delete an API, or stop a job.",
    "env": "Choose which deployment to talk to.",
    "envoy-config": "Print the configuration of an Envoy in front of gateway and scheduler.",
    "version": "Show the version.",
}
"""Name and first sentence, in the order of `cortex --help`. Each is `command` in `cortex.cli.commands.NAME`.

Where the name has a dash, the module has an underscore.
"""

EPILOG = """Wherever a command takes a JOB, `latest` means the newest one of the API.

\b
Exit codes:
  0    it went well; with --watch: the job succeeded
  1    an error; it says what is wrong on standard error
  2    the command line is wrong
  3    the watched job completed with failures
  4    the watched job ended without having attempted every batch
  130  interrupted with Ctrl-C; a job goes on
"""

HINTS = {
    "resources.api_not_deployed": "  see what is: cortex get{env}",
    "job.not_found": "  see its jobs: cortex get {api}{env}",
    "edge.unauthenticated": "  name yourself: export CORTEX_TOKEN=...",
    "job.results_not_kept": "  jobs that are submitted with --results keep them",
}
"""By an error's kind: what to do next, filled in from the command's parameters."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """Loads a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in their order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, loaded."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"cortex.cli.commands.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `cortex --help`, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cortex-batch", message="cortex %(version)s")
def cortex() -> None:
    """Run your own container over millions of items: deploy batch APIs, submit jobs to them and watch these."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        click.get_current_context().color = False  # Rich knows these by itself, Click does not


def main() -> None:
    """Run the command line."""
    cortex(prog_name="cortex")


class Command(click.Command):
    """A command whose failures are one line on standard error: `error: MESSAGE (KIND)`, or JSON with `-o json`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; end the process with 1 on an error, with 130 on Ctrl-C."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it is told if that fails
            return result
        except CortexException as error:
            as_json = ctx.params.get("output") == "json"
            _report(error, as_json=as_json)
            if not as_json and error.kind in HINTS:
                from cortex.cli.connect import same_environment

                environment = same_environment(ctx.params.get("environment"))
                click.echo(HINTS[error.kind].format(api=ctx.params.get("api"), env=environment), err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `cortex logs ... | head`: click ends the process quietly
                raise
            click.echo(f"{click.style('error:', fg='red')} {error.strerror or error}", err=True)
            _give_up_output()
            ctx.exit(1)


def _give_up_output() -> None:
    """What could not be written would be tried again at the end, and fail again, with a word of Python's own."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: CortexException, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps({"error": {"kind": error.kind, "message": error.message}}), file=sys.stderr)  # noqa: T201
    elif error.kind.startswith("client."):
        click.echo(f"{click.style('error:', fg='red')} {safe(error.message)}", err=True)
    else:
        click.echo(f"{click.style('error:', fg='red')} {safe(f'{error.message} ({error.kind})')}", err=True)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

environment_option: Decorator = click.option(
    "-e", "--env", "environment", metavar="NAME", help="One of `cortex env list`."
)
output_option: Decorator = click.option(
    "-o",
    "--output",
    type=click.Choice(["pretty", "json"]),
    default="pretty",
    help="With `json` nothing but JSON is printed.",
)
quiet_option: Decorator = click.option("-q", "--quiet", is_flag=True, help="Print nothing but the new job's id.")

ID_ONLY = "id"
"""The output of a command that is to be quiet."""


def quietly(quiet: bool, output: str) -> str:
    """The output that `--quiet` and `--output` ask for together. Raises `click.UsageError`."""
    if quiet and output == "json":
        raise click.UsageError("--quiet prints an id, which is not JSON: leave out --quiet or --output json")
    return ID_ONLY if quiet else output
