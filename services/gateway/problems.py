"""THE table from our errors to HTTP answers. Every one is `{"kind", "message"}`.

Status 400 says that the request must change, with two finer ones that Cortex's clients know: 404 and 413. What a later
try may mend is 5xx.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec
from starlette.responses import Response

from services.common.errors import Category, CortexError

HTTP_STATUS_OF_CATEGORY = {
    Category.INVALID: 400,
    Category.TOO_LARGE: 413,
    Category.NOT_FOUND: 404,
    Category.CONFLICT: 400,
    Category.UNAUTHENTICATED: 401,
    Category.UNSUPPORTED: 400,
    Category.STORAGE_FULL: 507,
    Category.UNAVAILABLE: 503,
    Category.INTERNAL: 500,
}

RETRY_AFTER_SECONDS = "2"
"""What a restart of the scheduler takes."""


@dataclass(frozen=True)
class Problem:
    """An error as HTTP tells it."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> bytes:
        """The body."""
        return msgspec.json.encode({"kind": self.kind, "message": self.message})

    def within(self, limit: int) -> "Problem":
        """The same in at most so many bytes, its message cut where it must be."""
        message = self.message
        while len(replace(self, message=message).json()) > limit:
            message = f"{message[: len(message) * 9 // 10]}..."
        return replace(self, message=message)

    def response(self) -> Response:
        """The answer."""
        return Response(self.json(), self.status, self.headers, "application/json")


class HttpError(Exception):
    """Trouble that only HTTP has a word for, such as a method that a route does not take."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def of(error: CortexError) -> Problem:
    """An error's answer."""
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if error.category is Category.UNAVAILABLE else {}
    return Problem(HTTP_STATUS_OF_CATEGORY[error.category], error.kind, error.message, headers)


def unexpected(error: Exception) -> Problem:
    """The answer to a mistake of ours."""
    return Problem(500, "system.unexpected_error", f"the gateway failed: {type(error).__name__}: {error}")


def bad_query(name: str, value: str, expected: str) -> CortexError:
    """A query parameter that makes no sense."""
    message = f"the query parameter `{name}` must be {expected}, not {value!r}"
    return CortexError("endpoints.invalid_query_param", message)


def missing_query(name: str, use: str) -> CortexError:
    """A query parameter that is not there. `use` shows how to give it."""
    return CortexError("endpoints.query_param_required", f"the query parameter `{name}` is required: {use}")
