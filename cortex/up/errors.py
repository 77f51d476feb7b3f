"""Why `cortex up` does not start, or gives up: one sentence for the person at the terminal."""

from cortex.exceptions import CortexException


class UpError(CortexException):
    """`cortex up` cannot go on."""

    def __init__(self, message: str) -> None:
        super().__init__("client.cannot_start", message)
