"""Spans in one SQLite file, bounded in every direction and disposable.

Nothing here is precious: no write is waited for (`synchronous=OFF`), and a broken file is replaced by an empty one. A
trace keeps at most `spans_per_trace` spans, and of those that do the same thing again and again (one *kind*: service
and name) at most `spans_per_kind`, so that ten thousand failed deliveries leave room for the end of the job. When all
traces together grow too large, those that were silent for longest go.

A `Store` belongs to one thread. Its methods raise `sqlite3.Error` or `OSError` where the disk is full or there is no
file to be had; the next call tries again.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cortex.batch.v1 import trace_service_pb2
from services.collector.spans import Placed

log = logging.getLogger(__name__)

_VERSION = 1
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""What SQLite says of a file that is not, or no longer, ours; an ERROR is a table that is missing."""
_ROW_OVERHEAD = 100
"""Bytes that a row costs beside its span, roughly."""

_SCHEMA = f"""
BEGIN;
CREATE TABLE traces (
    id BLOB PRIMARY KEY, updated_ns INTEGER NOT NULL, spans INTEGER NOT NULL, dropped INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX traces_by_age ON traces (updated_ns);
CREATE TABLE kinds (trace_id BLOB, kind TEXT, spans INTEGER NOT NULL, PRIMARY KEY (trace_id, kind)) WITHOUT ROWID;
CREATE TABLE spans (trace_id BLOB, id BLOB, data BLOB NOT NULL, PRIMARY KEY (trace_id, id)) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much is kept."""

    spans_per_trace: int = 5_000
    spans_per_kind: int = 2_000
    bytes_per_trace: int = 8 * 1024 * 1024
    """A trace fits into one gRPC message."""
    bytes_in_all: int = 256 * 1024 * 1024


class Store:
    """Spans by trace."""

    def __init__(self, path: Path, limits: Limits = Limits()) -> None:  # immutable
        self._path = path
        self._limits = limits
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0

    def add(self, spans: Iterable[Placed]) -> None:
        """Keep spans; those that are known already, or too many, are passed over."""
        spans = list(spans)
        self._on_file(lambda connection: self._add(connection, spans))

    def trace(self, trace_id: bytes) -> tuple[list[trace_service_pb2.Span], int]:
        """A trace's spans, oldest first, and how many were dropped."""
        return self._on_file(lambda connection: _read(connection, trace_id))

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _on_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._open())
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _BROKEN:
                raise
            log.warning("%s is broken (%s): starting with an empty one", self._path, error)
        self._discard()
        return work(self._open())

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = _connect(self._path)
            if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                connection.close()
                self._discard()
                connection = _connect(self._path)
                connection.executescript(_SCHEMA)
            (self._bytes,) = connection.execute("SELECT coalesce(sum(bytes), 0) FROM traces").fetchone()
            self._connection = connection
        return self._connection

    def _discard(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _add(self, connection: sqlite3.Connection, spans: list[Placed]) -> None:
        with _transaction(connection):
            batch = _Batch(connection, self._limits)
            for span in spans:
                batch.add(span)
            batch.finish()
            bytes_in_all = self._bytes + batch.bytes_added
            if bytes_in_all > self._limits.bytes_in_all:
                bytes_in_all -= _evict(connection, bytes_in_all - self._limits.bytes_in_all * 9 // 10)
        self._bytes = bytes_in_all


@dataclass
class _Trace:
    """What a trace holds while spans are being added to it."""

    spans: int = 0
    dropped: int = 0
    bytes: int = 0


class _Batch:
    """Spans on their way into the file, within one transaction. Counts are read and written once for each trace."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._traces: dict[bytes, _Trace] = {}
        self._kinds: dict[tuple[bytes, str], int] = {}
        self.bytes_added = 0

    def add(self, placed: Placed) -> None:
        """Insert a span if it is new and has room."""
        trace = self._trace(placed.trace_id)
        of_kind = self._of_kind(placed.trace_id, placed.kind)
        data = placed.span.SerializeToString()
        size = len(data) + _ROW_OVERHEAD + (0 if of_kind else len(placed.kind) + _ROW_OVERHEAD)
        if (
            trace.spans >= self._limits.spans_per_trace
            or of_kind >= self._limits.spans_per_kind
            or trace.bytes + size > self._limits.bytes_per_trace
        ):
            trace.dropped += 1
            return
        row = (placed.trace_id, placed.span.span_id, data)
        if self._connection.execute("INSERT OR IGNORE INTO spans VALUES (?, ?, ?)", row).rowcount:
            trace.spans += 1
            trace.bytes += size
            self._kinds[placed.trace_id, placed.kind] = of_kind + 1
            self.bytes_added += size

    def finish(self) -> None:
        """Write the counts."""
        now = time.time_ns()
        self._connection.executemany(
            "INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?)",
            [(key, now, trace.spans, trace.dropped, trace.bytes) for key, trace in self._traces.items()],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO kinds VALUES (?, ?, ?)",
            [(trace_id, kind, spans) for (trace_id, kind), spans in self._kinds.items() if spans],
        )

    def _trace(self, trace_id: bytes) -> _Trace:
        if trace_id not in self._traces:
            query = "SELECT spans, dropped, bytes FROM traces WHERE id = ?"
            self._traces[trace_id] = _Trace(*(self._connection.execute(query, (trace_id,)).fetchone() or ()))
        return self._traces[trace_id]

    def _of_kind(self, trace_id: bytes, kind: str) -> int:
        key = (trace_id, kind)
        if key not in self._kinds:
            query = "SELECT spans FROM kinds WHERE trace_id = ? AND kind = ?"
            (self._kinds[key],) = self._connection.execute(query, key).fetchone() or (0,)
        return self._kinds[key]


def _read(connection: sqlite3.Connection, trace_id: bytes) -> tuple[list[trace_service_pb2.Span], int]:
    rows = connection.execute("SELECT data FROM spans WHERE trace_id = ?", (trace_id,))
    spans = [trace_service_pb2.Span.FromString(data) for (data,) in rows]
    spans.sort(key=lambda span: (span.start_unix_nano, -span.end_unix_nano))
    (dropped,) = connection.execute("SELECT dropped FROM traces WHERE id = ?", (trace_id,)).fetchone() or (0,)
    return spans, dropped


def _evict(connection: sqlite3.Connection, wanted: int) -> int:
    """Delete the traces that were silent for longest, until `wanted` bytes are free; return how many are."""
    freed = 0
    while freed < wanted:
        query = "SELECT id, bytes FROM traces ORDER BY updated_ns LIMIT 1"
        trace_id, size = connection.execute(query).fetchone()
        connection.execute("DELETE FROM spans WHERE trace_id = ?", (trace_id,))
        connection.execute("DELETE FROM kinds WHERE trace_id = ?", (trace_id,))
        connection.execute("DELETE FROM traces WHERE id = ?", (trace_id,))
        freed += size
    return freed


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1)
    for setting in ("journal_mode = WAL", "synchronous = OFF", f"journal_size_limit = {8 * 1024 * 1024}"):
        connection.execute(f"PRAGMA {setting}")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back what an error left behind
        yield
