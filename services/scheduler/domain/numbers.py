"""The numbers of a submission, and their bounds."""

from services.common.errors import CortexError

MAX_WORKERS = 10_000
"""More workers than any machine or cluster of ours starts: surely a mistake."""

MAX_SECONDS = 100 * 365 * 24 * 3600
"""A hundred years: a deadline in nanoseconds since 1970 still fits 64 bits."""


def whole_number(name: str, value: int | None, high: int) -> int:
    """A number from 1 to `high`. Raises `CortexError` when it is missing or out of bounds."""
    if value is None:
        raise CortexError("configreader.must_be_defined", f"{name}: this key is missing; give a whole number >= 1")
    if value < 1:
        kind = "configreader.must_be_greater_than_or_equal_to"
        raise CortexError(kind, f"{name}: {value} must be greater than or equal to 1")
    if value > high:
        kind = "configreader.must_be_less_than_or_equal_to"
        raise CortexError(kind, f"{name}: {value} must be less than or equal to {high}")
    return value


def check_workers(workers: int | None) -> int:
    """A job's number of workers. Raises `CortexError` when it is missing or out of bounds."""
    return whole_number("workers", workers, MAX_WORKERS)
