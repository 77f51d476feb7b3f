"""Where a job's items come from after its submission.

A source gives its items in order, in *parts*. Each part tells the *position* behind it: what the source must be told to
go on there after a restart. It is kept with the part, in one transaction.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.scheduler.domain.model.item_stream import Piece


@dataclass(frozen=True, slots=True)
class Part:
    """Items on their way into a job."""

    pieces: Sequence[Piece]
    lengths: Sequence[int]
    """Of the items, commas included."""
    position: bytes
    """Behind it, as JSON: where the source goes on."""


class ItemSource(Protocol):
    """Where items come from."""

    def parts(self, position: bytes) -> AsyncGenerator[Part, None]:
        """What is behind a position (`b""`: all), until there is no more.

        Raises `CortexError` when something is wrong with it, which ends the job.
        """
