"""What the layer of statements asks of a database. `sqlite/` and `postgresql/` answer.

Statements are written once, in what both understand: `?` and `:name` for values, `ON CONFLICT`, no more. An engine
knows how to open a database and who else has it, what makes a transaction durable and how a broken one ends, and what
its errors mean to people.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from services.common.errors import CortexError

T = TypeVar("T")

Row = tuple[Any, ...]


class Rows(Protocol):
    """What a statement answered."""

    def fetchone(self) -> Any:
        """The next row; None behind the last."""

    def fetchall(self) -> list[Row]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Row]: ...


class Connection(Protocol):
    """A connection of the database's own library, or what looks like SQLite's. Used by one thread at a time."""

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Rows:
        """Run one statement."""


Operation = Callable[[Connection], T]
"""Runs statements inside of a transaction that somebody else begins and ends, perhaps twice."""


DEPOSED = "ledger.deposed"
"""The kind of the error that is raised when another scheduler has opened the ledger after this one."""


class CannotWriteError(CortexError):
    """Nothing can be written now, whatever it is."""


class Writing(Protocol):
    """The one connection that writes. Raises `CannotWriteError`, and `CortexError` for the database's errors."""

    check_seconds: float | None
    """When there was nothing to write for so long, `check`; None: never."""

    def transact(self, operation: Operation[T], wait_on: Callable[[CannotWriteError], bool]) -> T:
        """Run an operation in one transaction, on disk when this returns; when it raises, nothing was changed.

        Where the database must be waited for to learn which of both, `wait_on` is asked after each try that failed.
        """

    def check(self) -> None:
        """See that writing is possible."""

    def close(self) -> None:
        """Let go of the database. May be called again."""


class Reading(Protocol):
    """A connection that cannot write. In a transaction (`BEGIN` to `COMMIT`) it sees one moment."""

    def read(self, query: Operation[T]) -> T:
        """Run a query. Raises `CortexError` for the database's errors."""

    def close(self) -> None:
        """Let go of the database."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the ledger knows of itself: see the port."""

    generation: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A ledger's database, open."""

    identity: Identity
    writing: Writing
    readings: list[Reading]


class Engine(Protocol):
    """Where a ledger is, and in what."""

    def open(self) -> Opened:
        """Open the ledger's database, or make a new one; count this opening. All of it is on disk afterwards.

        Raises `CortexError`: `ledger.in_use`, `ledger.version_not_supported`, `ledger.storage_full`, `ledger.failed`,
        `ledger.unavailable`.
        """
