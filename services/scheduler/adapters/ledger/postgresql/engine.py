"""A ledger in a PostgreSQL database (14 or newer) of its own.

Opening it: take the lock that says who writes (`session.py`), then, in one transaction, make or bring up the tables and
raise the generation, which fences whoever had it open before (`writing.py`).
"""

from contextlib import ExitStack
from typing import TypeVar

import psycopg

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import Identity, Opened, Operation
from services.scheduler.adapters.ledger.migrations import bring_up
from services.scheduler.adapters.ledger.postgresql import session
from services.scheduler.adapters.ledger.postgresql.connection import Address, Connection, Raw, connect
from services.scheduler.adapters.ledger.postgresql.dialect import table
from services.scheduler.adapters.ledger.postgresql.errors import ends_session, explain
from services.scheduler.adapters.ledger.postgresql.writing import PostgresWriting

T = TypeVar("T")

READERS = 2
"""As for SQLite: one read that is long leaves the other for dispatch."""

ENDS, END_SECONDS = 5, 1.0
"""How often a rival's session is ended, which may be just coming back, and how long it has for it."""

_NOT_COMPRESSED = (("input", "bytes"), ("kept_items", "bytes"), ("replies", "bytes"))
"""Ranges of these are read, which costs the whole where it is compressed."""


class PostgresEngine:
    """See `Engine`."""

    def __init__(self, url: str, *, take_over: bool = False) -> None:
        """`take_over`: depose whoever has it open. Else that is refused. Raises `CortexError` for a wrong URL."""
        self._address = Address(url)
        self._take_over = take_over

    def open(self) -> Opened:
        """See `Engine`."""
        try:
            with ExitStack() as opened:
                raw = connect(self._address)
                opened.callback(raw.close)
                self._become_the_writer(raw)
                identity = self._prepare(raw)
                writing = PostgresWriting(raw, self._address, identity.generation)
                opened.pop_all()
                return Opened(identity, writing, [PostgresReading(self._address) for _ in range(READERS)])
        except psycopg.Error as error:
            raise explain(error, self._address) from error

    def _become_the_writer(self, raw: Raw) -> None:
        for _ in range(ENDS if self._take_over else 0):
            session.end_holders(raw)
            if session.lock(raw, END_SECONDS):
                return
        if not session.lock(raw):
            who = session.holder(raw)
            message = f"another scheduler ({who}) uses the ledger {self._address}: end it, or choose another database"
            raise CortexError("ledger.in_use", message, Category.CONFLICT)

    def _prepare(self, raw: Raw) -> Identity:
        (encoding,) = raw.execute(b"SHOW server_encoding").fetchone() or ("",)
        if encoding != "UTF8":
            message = f"the database {self._address} is encoded as {encoding}: make one with ENCODING 'UTF8'"
            raise CortexError("ledger.failed", message, Category.INTERNAL)
        with raw.transaction():
            (new,) = raw.execute(b"SELECT to_regclass('ledger') IS NULL").fetchone() or (True,)
            identity = bring_up(Connection(raw), new=new, where=str(self._address), translated=table)
            if new:
                for name, column in _NOT_COMPRESSED:
                    raw.execute(f"ALTER TABLE {name} ALTER COLUMN {column} SET STORAGE EXTERNAL".encode())
            return identity


class PostgresReading:
    """See `Reading`. Connects when it is first used."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._raw: Raw | None = None

    def read(self, query: Operation[T]) -> T:
        """See `Reading`. Once more on a new connection, should the old one be lost."""
        try:
            return self._read(query)
        except psycopg.OperationalError as error:
            if self._raw is not None:
                raise explain(error, self._address) from error
        try:
            return self._read(query)
        except psycopg.Error as error:
            raise explain(error, self._address) from error

    def close(self) -> None:
        """See `Reading`."""
        if self._raw is not None:
            self._raw.close()

    def _read(self, query: Operation[T]) -> T:
        if self._raw is None:
            self._raw = connect(self._address, reading=True)
        try:
            return query(Connection(self._raw))
        except psycopg.Error as error:
            if ends_session(error, self._raw):
                self._raw.close()
                self._raw = None
            raise
