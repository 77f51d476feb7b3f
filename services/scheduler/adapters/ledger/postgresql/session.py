"""Who has the ledger open for writing: whose session holds the lock of this name. It ends with the session.

It keeps two schedulers on one database from fighting. What keeps a deposed one from writing is in `writing.py`.
"""

from contextlib import suppress
from typing import NamedTuple

import psycopg

from services.scheduler.adapters.ledger.postgresql.connection import Raw

WAIT_SECONDS = 5.0
"""How long a session that is about to end may still hold the lock."""

_LOCK = b"SELECT pg_advisory_lock(1128418353)"  # "CBL1"
_HOLDERS = (
    b"FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND objid = 1128418353 AND granted"
    b" AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()"
)


class Session(NamedTuple):
    """Which session of the server; process ids are used again."""

    process: int
    started: str


def of(raw: Raw) -> Session:
    """The one that this connection has."""
    found = raw.execute(b"SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    return Session(*found.fetchall()[0])


def lock(raw: Raw, seconds: float | None = None) -> bool:
    """Become the holder; False when another one does not let go so long, usually WAIT_SECONDS."""
    milliseconds = int(1000 * (WAIT_SECONDS if seconds is None else seconds))
    try:
        with raw.transaction():
            raw.execute(f"SET LOCAL lock_timeout = {milliseconds}".encode())
            raw.execute(_LOCK)
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def holder(raw: Raw) -> str:
    """The name under which the holder has connected; empty when there is none."""
    row = raw.execute(b"SELECT application_name " + _HOLDERS).fetchone()
    return row[0] if row else ""


def end(raw: Raw, session: Session) -> None:
    """End a session, should it still be there: it cannot commit any more, or has."""
    with suppress(psycopg.errors.InsufficientPrivilege):  # another user's: then it must end by itself
        raw.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            b" WHERE pid = $1 AND backend_start = $2::timestamptz",
            session,
        )


def end_holders(raw: Raw) -> None:
    """End the sessions that hold the lock."""
    with suppress(psycopg.errors.InsufficientPrivilege):  # as above
        raw.execute(b"SELECT pg_terminate_backend(pid) " + _HOLDERS)
