"""A lease as the parts of the dequeuer hand it on."""

from typing import NamedTuple


class Lease(NamedTuple):
    """One batch to deliver. A tuple, because one is made for each batch on the hot path."""

    batch: int
    """The batch's index in its job."""
    epoch: int
    """The fencing number, by which everything about this lease is said."""
    attempt: int
    payload: bytes
    traceparent: str
