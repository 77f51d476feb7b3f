"""What the server's errors mean to people, and what they mean for the connection."""

import psycopg
from psycopg import errors

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import DEPOSED, CannotWriteError
from services.scheduler.adapters.ledger.postgresql.connection import Address, Raw

_SESSION_ENDED = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,  # the server is not the primary one any more
)
_LATER = (*_SESSION_ENDED, errors.LockNotAvailable, errors.TooManyConnections, errors.DeadlockDetected)


_HINTS = {
    "no password supplied": "give one in ~/.pgpass, or in the URL in CORTEX_LEDGER",
    "authentication failed": "mend the user or the password, in the URL in CORTEX_LEDGER or in ~/.pgpass",
    "no pg_hba.conf entry": "let this user and machine in, in the server's pg_hba.conf",
    "does not exist": "make it (`createuser`, `createdb --owner USER DATABASE`), or name another",
    "resolve host": "mend the host's name in the URL, or the name service",
}
"""What helps, by the words with which a server refuses to let us in: it gives no code for these."""


def ends_session(error: psycopg.Error, raw: Raw) -> bool:
    """Whether the connection is of no use any more."""
    return raw.closed or isinstance(error, _SESSION_ENDED)


def explain(error: psycopg.Error, address: Address) -> CortexError:
    """What a failure means to people."""
    text = error.diag.message_primary or " ".join(str(error).split())
    if isinstance(error, errors.DiskFull):
        message = f"the disk of the database server of {address} is full: nothing was changed; free some space there"
        return CortexError("ledger.storage_full", message, Category.STORAGE_FULL)
    if isinstance(error, _LATER) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
        return unavailable(address, text)
    if isinstance(error, errors.InsufficientPrivilege):
        text += "; the user needs to own the database, or GRANT CREATE ON SCHEMA public"
    return CortexError("ledger.failed", f"the ledger {address} failed: {text}", Category.INTERNAL)


def unavailable(address: Address, why: str) -> CannotWriteError:
    """The server cannot be reached."""
    message = f"the ledger {address} cannot be reached ({why}): {_what_to_do(why)}"
    return CannotWriteError("ledger.unavailable", message, Category.UNAVAILABLE)


def _what_to_do(why: str) -> str:
    return next(
        (hint for words, hint in _HINTS.items() if words in why), "see that its database server runs, or try again"
    )


def deposed(address: Address, generation: int) -> CannotWriteError:
    """Somebody else writes."""
    message = (
        f"another scheduler has opened the ledger {address} since this one did (generation {generation}): this one can"
        " write nothing any more"
    )
    return CannotWriteError(DEPOSED, message, Category.UNAVAILABLE)
