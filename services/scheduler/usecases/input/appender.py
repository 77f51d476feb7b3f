"""Makes a job's item stream longer, in the order of what comes: what comes during a write shares the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.scheduler.domain.items import PIECE_BYTES
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.model.item_stream import Piece

MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Copied bytes that may wait while a write is under way."""
MAX_WAITING_SEGMENTS = 1024


@dataclass(slots=True)
class Growth:
    """What is written together."""

    pieces: list[Piece] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    cursor: Cursor = field(default_factory=Cursor)
    size: int = 0
    """Copied bytes."""


class Appender:
    """One job's growth on its way to the ledger."""

    def __init__(self, write: Callable[[Growth], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: Growth | None = None
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def add(self, pieces: Sequence[Piece], segments: Sequence[Segment], cursor: Cursor) -> None:
        """Take this, and wait while too much waits. `cursor` stands behind it."""
        growth = self._waiting = self._waiting or Growth()
        growth.pieces += pieces
        growth.size += sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        growth.segments += segments
        growth.cursor = cursor
        self._work.set()
        self._idle.clear()
        if growth.size >= MAX_WAITING_BYTES or len(growth.segments) >= MAX_WAITING_SEGMENTS:
            self._room.clear()
        await self._room.wait()

    async def flush(self) -> None:
        """Wait until all of it is on disk."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            growth, self._waiting = self._waiting, None
            self._room.set()
            if growth is not None:
                growth.pieces = joined(growth.pieces)
                await self._write(growth)
            if self._waiting is None:
                self._idle.set()


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with neighbouring copies joined, as far as PIECE_BYTES allow."""
    found: list[Piece] = []
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        fits = isinstance(piece, bytes) and size + len(piece) <= PIECE_BYTES
        if gathered and not fits:
            found.append(b"".join(gathered))
            gathered, size = [], 0
        if isinstance(piece, bytes):
            gathered.append(piece)
            size += len(piece)
        else:
            found.append(piece)
    return [*found, b"".join(gathered)] if gathered else found
