"""The one connection that writes, and how a deposed scheduler and a lost answer are found out.

The ledger's row holds its generation and the number of the last transaction. Every transaction begins with

    UPDATE ledger SET transaction_number = NUMBER WHERE generation = GENERATION

- A newer scheduler raises the generation in the same row. While a transaction of ours is under way it waits for the
  row; afterwards nothing matches any more: this one is *deposed*, for good.
- When the connection is lost in a COMMIT its fate is unknown. Nobody else writes, so after reconnecting the number in
  the row tells: ours, it was committed; an older one, it was not, and is run again. The old session is ended first, and
  the row is read with a lock, which waits until that session has let go of it.

All statements of a transaction go out in a pipeline: it is waited only for what they ask, and for the commit.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from services.scheduler.adapters.ledger.engine import DEPOSED, CannotWriteError, Operation
from services.scheduler.adapters.ledger.postgresql import session
from services.scheduler.adapters.ledger.postgresql.connection import Address, Connection, Raw, connect
from services.scheduler.adapters.ledger.postgresql.errors import deposed, ends_session, explain, unavailable

T = TypeVar("T")

ATTEMPTS = 2
"""A connection that broke while nobody used it is noticed only at its use: once more, on a new one."""
PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between tries to reach the server while a commit's fate is to be found out; then always the last."""

_FENCE = b"UPDATE ledger SET transaction_number = $1 WHERE generation = $2 RETURNING generation"
_GENERATION = b"SELECT generation FROM ledger"
_LAST = b"SELECT generation, transaction_number FROM ledger FOR UPDATE"


class PostgresWriting:
    """See `Writing`."""

    check_seconds: float | None = 2.0

    def __init__(self, raw: Raw, address: Address, generation: int) -> None:
        self._raw: Raw | None = raw
        self._session = session.of(raw)
        self._address = address
        self._generation = generation
        self._number = 0
        self._committed = 0

    def transact(self, operation: Operation[T], wait_on: Callable[[CannotWriteError], bool]) -> T:
        """See `Writing`."""
        lost: psycopg.Error | None = None
        for _ in range(ATTEMPTS):
            raw = self._connected()
            self._number += 1
            committing = False
            try:
                with raw.pipeline():
                    raw.execute(b"BEGIN", prepare=False)
                    fence = raw.execute(_FENCE, (self._number, self._generation), binary=True)
                    result = operation(Connection(raw))
                    self._see_that_it_is_ours(fence.fetchone())
                    committing = True
                    raw.execute(b"COMMIT", prepare=False)
            except psycopg.Error as error:
                if not ends_session(error, raw):
                    self._roll_back(raw)
                    raise explain(error, self._address) from error
                lost = error
                self._let_go()
            except BaseException:
                self._roll_back(raw)
                raise
            else:
                self._committed = self._number
                return result
            if committing and self._find_out(wait_on):
                return result
        raise unavailable(self._address, str(lost)) from lost

    def check(self) -> None:
        """See `Writing`."""
        try:
            raw = self._connected()
            row = raw.execute(_GENERATION).fetchone()
        except psycopg.Error as error:
            self._let_go()
            raise explain(error, self._address) from error
        self._see_that_it_is_ours(row)

    def close(self) -> None:
        """See `Writing`."""
        self._let_go()

    def _roll_back(self, raw: Raw) -> None:
        try:
            raw.execute(b"ROLLBACK", prepare=False)
        except psycopg.Error:
            self._let_go()

    def _let_go(self) -> None:
        if self._raw is not None:
            with suppress(psycopg.Error):
                self._raw.close()
            self._raw = None

    def _find_out(self, wait_on: Callable[[CannotWriteError], bool]) -> bool:
        """Whether the last transaction was committed. Waits for the server, however long it is away."""
        number, tries = self._number, 0
        while True:
            try:
                self._connected()
                return self._committed == number
            except CannotWriteError as error:
                if error.kind == DEPOSED or not wait_on(error):
                    raise
            pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            tries += 1

    def _connected(self) -> Raw:
        """The connection, a new one if need be. Raises `CannotWriteError`."""
        if self._raw is None:
            try:
                self._raw = self._reconnect()
            except psycopg.Error as error:
                raise unavailable(self._address, str(explain(error, self._address))) from error
        return self._raw

    def _reconnect(self) -> Raw:
        raw = connect(self._address)
        try:
            self._see_that_it_is_ours(raw.execute(_GENERATION).fetchone())  # else the lock is another's
            session.end(raw, self._session)
            self._lock(raw)
            row = self._see_that_it_is_ours(raw.execute(_LAST).fetchone())
            self._session, self._committed = session.of(raw), row[1]
        except BaseException:
            raw.close()
            raise
        return raw

    def _lock(self, raw: Raw) -> None:
        if not session.lock(raw):  # somebody is about to depose this one, or an ending session takes its time
            raise unavailable(self._address, "another session has it open")

    def _see_that_it_is_ours(self, row: tuple[int, ...] | None) -> tuple[int, ...]:
        """The row, which begins with the generation. Raises `CannotWriteError` when that is not ours."""
        if row is None or row[0] != self._generation:
            raise deposed(self._address, self._generation)
        return row
