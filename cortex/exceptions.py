"""What can go wrong for a client."""


class CortexException(Exception):  # noqa: N818  # the name that users of Cortex catch
    """A request failed.

    `kind` is for machines, such as `job.job_is_not_in_progress`; kinds that begin with `client.` are ours, all others
    the server's. `message` is for people.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class NotFound(CortexException):
    """What was asked for does not exist: an API, a job, an environment."""


class Unreachable(CortexException):
    """The deployment gave no answer, or broke off in the middle of one. Trying again later may help."""
