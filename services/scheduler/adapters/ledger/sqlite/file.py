"""The ledger's file: who may open it, what it must look like, and what its troubles mean to people.

One scheduler at a time: it holds a lock on a file beside the ledger, which the kernel releases when the process ends,
however it ends. SQLite's `application_id` tells a ledger from other databases.
"""

import errno
import fcntl
import os
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import Identity
from services.scheduler.adapters.ledger.migrations import bring_up

APPLICATION_ID = 0x43424C31  # "CBL1"
BUSY_SECONDS = 10.0
"""How long to wait for someone who reads or copies the file with other tools."""

PAGE_BYTES = 8192
"""Input is stored a third faster than with SQLite's 4096, outcomes as fast."""

JOURNAL_BYTES = 64 * 1024 * 1024
"""What the write-ahead log keeps of its size after a large submission."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def take_lock(path: Path) -> int:
    """Make this process the ledger's only user; return the descriptor that holds the lock."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        # Directories first: a ledger is durable only if the way to it is.
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _cannot_open(path, error.strerror or str(error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise _cannot_open(path, f"it cannot be locked: {error.strerror}") from error
        who = f" (process {owner})" if owner else ""
        message = f"another scheduler{who} uses the ledger {path}: end it, or choose another data directory"
        raise CortexError("ledger.in_use", message, Category.CONFLICT) from error
    with suppress(OSError):  # only the sentence above becomes poorer, for instance when the disk is full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return. Used by one thread at a time."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> Identity:
    """Check the file, make a new one a ledger, and count this opening.

    All of it is on disk afterwards.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise _broken(path, "it is a database of another program")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise _cannot_open(path, "its file system lacks the shared memory that SQLite needs; use a local disk")
    connection.execute("BEGIN IMMEDIATE")
    identity = bring_up(connection, new=not tables, where=str(path))
    if not tables:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")
    _sync_directory(path.parent)
    with suppress(PermissionError):  # may be a directory of somebody else, who made it long ago
        _sync_directory(path.parent.parent)
    return identity


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: sqlite3.Error | OSError, path: Path) -> CortexError:
    """What a failure means to people."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte: without the details
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        return _full(path)
    if isinstance(error, OSError):
        return _full(path) if error.errno in _NO_SPACE else _cannot_open(path, error.strerror or str(error))
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _broken(path, str(error))
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return _cannot_open(path, str(error))
    return CortexError("ledger.failed", f"the ledger {path} failed: {error}", Category.INTERNAL)


def _is_full(directory: Path) -> bool:
    """SQLite says "disk I/O error" for some of the ways in which a disk can be full: see whether it takes anything."""
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno in _NO_SPACE
    return False


def _full(path: Path) -> CortexError:
    message = f"the disk that holds {path} is full: nothing was changed; free some space and try again"
    return CortexError("ledger.storage_full", message, Category.STORAGE_FULL)


def _broken(path: Path, why: str) -> CortexError:
    message = (
        f"{path} is not a ledger that can be used ({why}): restore it from a backup, or move it away to start anew"
    )
    return CortexError("ledger.failed", message, Category.INTERNAL)


def _cannot_open(path: Path, why: str) -> CortexError:
    message = (
        f"the ledger {path} cannot be opened ({why}): see that this user may write to the file and its directory,"
        " or choose another data directory"
    )
    return CortexError("ledger.failed", message, Category.INTERNAL)
