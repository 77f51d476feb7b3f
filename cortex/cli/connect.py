"""From `--env NAME` to a deployment."""

from cortex import environments
from cortex.operator import Operator
from cortex.transport import Transport


def connect(environment: str | None) -> Operator:
    """The routes of the named environment, or of the default one. Raises `NotFound`."""
    return Operator(Transport(environments.load().find(environment)))


def same_environment(environment: str | None) -> str:
    """What to add to a command that is shown, so that it goes to the same place."""
    return f" --env {environment}" if environment else ""
