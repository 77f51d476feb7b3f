"""`cortex watch`, and the watching of `cortex submit --watch`."""

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from cortex.cli.app import ID_ONLY, INTERRUPTED, Command, environment_option, output_option
from cortex.cli.connect import connect, find_job, same_environment
from cortex.cli.output import console, json_document
from cortex.cli.told import told
from cortex.operator import Operator

SUCCEEDED, WITH_FAILURES, NOT_COMPLETED = 0, 3, 4
"""Exit codes for the end of a job: all batches succeeded, all were attempted and some failed, anything else."""


@click.command("watch", cls=Command)
@click.argument("api")
@click.argument("job")
@environment_option
@output_option
def command(api: str, job: str, environment: str | None, output: str) -> None:
    """Follow a job to its end.

    A bar in a terminal, a line a second elsewhere; with `--output json` a JSON document a line for every change.
    Ctrl-C ends the watching, not the job.

    \b
    Exit codes:
      0    the job succeeded
      3    it completed with failures: every batch was attempted, some failed
      4    it ended otherwise: stopped, timed out, a worker that kept failing, ...
      130  Ctrl-C; the job goes on
    """
    operator = connect(environment)
    job = find_job(operator, api, job)
    click.get_current_context().exit(watch(operator, api, job, environment, output))


def watch(operator: Operator, api: str, job: str, environment: str | None, output: str) -> int:
    """Show a job until it is over, or only wait for that; the exit code."""
    updates = operator.watch(api, job)
    where = f"{api} {job}{same_environment(environment)}"
    try:
        if output == "json":
            return _watch_as_json(updates)
        if output == ID_ONLY:
            return exit_code(json.loads(deque(updates, maxlen=1)[0]))
        last = _watch_for_people(updates)
        code = exit_code(last)
        if last["job_status"].get("results"):
            click.echo(f"its results: cortex results {where}", err=True)
        if code == WITH_FAILURES:
            click.echo(f"its failed batches: cortex failures {where}", err=True)
        if code != SUCCEEDED:
            click.echo(f"what its containers wrote: cortex logs {where}", err=True)
        return code
    except KeyboardInterrupt:
        hints = f"  watch it again: cortex watch {where}\n  stop it:        cortex delete {where}"
        click.echo(f"job {job} goes on\n{hints}", err=True)
        return INTERRUPTED


def _watch_as_json(updates: Iterator[bytes]) -> int:
    line = b""
    for line in updates:
        json_document(line)
    return exit_code(json.loads(line))


def _watch_for_people(updates: Iterator[bytes]) -> dict[str, Any]:
    from cortex.cli.views import watching

    last = watching.follow(console(), (told(line) for line in updates))
    watching.print_end(console(), last)
    return last


def exit_code(job: dict[str, Any]) -> int:
    """The exit code that tells how a job ended."""
    ends = {"succeeded": SUCCEEDED, "completed_with_failures": WITH_FAILURES}
    return ends.get(job["job_status"]["status"], NOT_COMPLETED)
