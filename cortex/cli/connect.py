"""From `--env NAME` to a deployment, and from JOB to one of its jobs."""

import json

import click

from cortex import environments
from cortex.cli.told import safe
from cortex.exceptions import NotFound
from cortex.operator import Operator
from cortex.transport import Transport

LATEST = "latest"
"""Stands for the newest job of an API wherever a job is named."""


def connect(environment: str | None) -> Operator:
    """The routes of the named environment, or of the default one. Raises `NotFound`."""
    return Operator(Transport(environments.load().find(environment)))


def find_job(operator: Operator, api: str, job: str) -> str:
    """The id of a job that is given as such, or as `latest`; then standard error tells which one that is.

    Raises `NotFound` where the API has no job yet.
    """
    if job != LATEST:
        return job
    jobs = json.loads(operator.api(api))[0]["batch_job_statuses"]
    if not jobs:
        raise NotFound("client.no_jobs", f"{api} has no jobs yet: `cortex submit {api} ...` submits one")
    found = str(jobs[0]["job_id"])
    click.echo(safe(f"{LATEST} is job {found}"), err=True)
    return found


def same_environment(environment: str | None) -> str:
    """What to add to a command that is shown, so that it goes to the same place."""
    return f" --env {environment}" if environment else ""
