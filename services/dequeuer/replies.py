"""Containers' replies in memory, from their first byte until the scheduler has recorded them, in bounded room.

    begin -> add ... -> end -> (reported) -> forget

Only a job that keeps its results has any. All replies together may take `BUDGET_BYTES`. While they take more nothing
new is delivered, and of the replies that are just arriving one is read on, the others wait in their sockets; the next
may go on when that one is forgotten. So there is always progress, and never more than the budget and one reply.
"""

from collections.abc import Callable
from typing import Protocol

from services.common.replies import MAX_KEPT_REPLY_BYTES, fits

BUDGET_BYTES = 4 * 1024 * 1024
"""With one reply more, and what is copied of it to be sent, well within the memory that a worker's pod is given."""

_LIMIT = f"{MAX_KEPT_REPLY_BYTES // 10**6} MB: answer less, write it to a file or a store, or submit without `results`"


class Reader(Protocol):
    """What a reply comes from."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Go on."""


class KeptReply:
    """One reply and the room that it takes."""

    __slots__ = ("_reader", "_room", "_so_far", "body", "size", "too_large")

    def __init__(self, room: "ReplyRoom", reader: Reader) -> None:
        self._room = room
        self._reader: Reader | None = reader
        self._so_far: bytes | bytearray = b""
        self.body = b""
        """The whole of it, once it is whole."""
        self.size = 0
        """Bytes."""
        self.too_large = ""
        """Why it cannot be kept, for people; empty when it can."""

    @property
    def reader(self) -> Reader | None:
        """Where it comes from, while it is not whole."""
        return self._reader

    def add(self, more: bytes) -> None:
        """Bytes arrived."""
        size = self.size + len(more)
        if size > MAX_KEPT_REPLY_BYTES:
            self.too_large = f"the container's answer is to be kept and larger than {_LIMIT}"
            return
        if not self._so_far:
            self._so_far = more  # most replies come in one piece, which is not copied
        else:
            if isinstance(self._so_far, bytes):
                self._so_far = bytearray(self._so_far)
            self._so_far += more
        self.size = size
        self._room.took(self, len(more))

    def end(self) -> None:
        """It is whole."""
        self._reader = None
        self.body, self._so_far = bytes(self._so_far), b""

    def misfit(self) -> str:
        """Why it cannot be kept although it has arrived, for people; empty when it can. Asked once it is whole."""
        if fits(self.body):
            return ""
        return f"the container's answer is no JSON, and as a JSON string larger than {_LIMIT}"

    def forget(self) -> None:
        """It is recorded, or not wanted any more."""
        size, self.size = self.size, 0
        self.body = self._so_far = b""
        self._room.gave_back(self, size)


class ReplyRoom:
    """The room of all replies. `on_room`: it was full and is no more."""

    def __init__(self, on_room: Callable[[], None], budget_bytes: int = BUDGET_BYTES) -> None:
        self._on_room = on_room
        self._budget = budget_bytes
        self._used = 0
        self._ahead: KeptReply | None = None  # the one that may go beyond the budget
        self._waiting: dict[KeptReply, None] = {}  # in order; told to read no more

    @property
    def full(self) -> bool:
        """Whether new batches must wait."""
        return self._used > self._budget

    def begin(self, reader: Reader) -> KeptReply:
        """A reply begins to arrive."""
        return KeptReply(self, reader)

    def took(self, reply: KeptReply, size: int) -> None:
        """A reply has grown."""
        self._used += size
        if not self.full or reply is self._ahead:
            return
        if self._ahead is None:
            self._ahead = reply
        elif reply.reader is not None:
            self._waiting[reply] = None
            reply.reader.pause_reading()

    def gave_back(self, reply: KeptReply, size: int) -> None:
        """A reply is gone."""
        was_full = self.full
        self._used -= size
        self._waiting.pop(reply, None)
        if reply is self._ahead:
            self._ahead = None
        if not self.full:
            self._ahead = None
            waiting, self._waiting = self._waiting, {}
            for other in waiting:
                _resume(other)
            if was_full:
                self._on_room()
        elif self._ahead is None and self._waiting:
            self._ahead = next(iter(self._waiting))
            del self._waiting[self._ahead]
            _resume(self._ahead)


def _resume(reply: KeptReply) -> None:
    if reply.reader is not None:
        reply.reader.resume_reading()
