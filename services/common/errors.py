"""The one error that crosses a service's border.

A `CortexError` has a machine-readable kind (`area.snake_case`), a sentence for people, and a category. The category
decides the gRPC status (`grpc_errors.py`), and that decides the HTTP status (`services/gateway/problems.py`).
"""

from enum import Enum

DOMAIN = "batch.cortex.dev"
"""The `domain` of every google.rpc.ErrorInfo that we send."""


class Category(Enum):
    """What sort of trouble it is, hence who can mend it."""

    INVALID = "invalid"  # the request is wrong and stays wrong
    TOO_LARGE = "too_large"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  # right request, wrong moment: the thing's state forbids it
    UNAUTHENTICATED = "unauthenticated"
    UNSUPPORTED = "unsupported"  # well formed, but this deployment cannot do it
    STORAGE_FULL = "storage_full"
    UNAVAILABLE = "unavailable"  # try again
    INTERNAL = "internal"


class CortexError(Exception):
    """Something a user is told: `kind` for machines, `message` for people."""

    def __init__(self, kind: str, message: str, category: Category = Category.INVALID) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.category = category
