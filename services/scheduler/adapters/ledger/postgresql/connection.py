"""Connections to the server, set up as the ledger needs them."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper

from services.common.errors import CortexError
from services.scheduler.adapters.ledger.engine import Rows
from services.scheduler.adapters.ledger.postgresql.dialect import translated

Raw = psycopg.Connection[tuple[Any, ...]]

_DEFAULTS = {
    "connect_timeout": "5",
    "target_session_attrs": "read-write",  # of several hosts, the one that can be written to
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",  # milliseconds
}
"""What the URL may say otherwise."""

_SESSION = """
    SET idle_in_transaction_session_timeout = '10s';  -- a scheduler that hangs must not hold its successor up
    SET lock_timeout = '5s';
    SET statement_timeout = 0;
    SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
    SET enable_seqscan = off;  -- there is an index for every statement, whatever the statistics say of a young table
    SET plan_cache_mode = force_generic_plan;
    SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_READING = "SET default_transaction_isolation = 'repeatable read'; SET default_transaction_read_only = on"


class Address:
    """Where a ledger's database is. Shown without the password."""

    def __init__(self, url: str) -> None:
        """Raises `CortexError` when it is no such address."""
        try:
            told = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        except psycopg.Error:  # whose text quotes the URL, password and all
            raise _not_understood() from None
        if any("@" in told.get(name, "") for name in ("host", "port", "dbname")):  # a part of a password, most likely
            raise _not_understood()
        who = f"cortex-scheduler {socket.gethostname()[:32]} {os.getpid()}"
        self.parameters = {**_DEFAULTS, "application_name": who, **told, "client_encoding": "UTF8"}
        user, host, port = (told.get(name, "") for name in ("user", "host", "port"))
        place = "" if host.startswith("/") else f"{host}{port and ':'}{port}"
        self._shown = f"postgresql://{user}{user and place and '@'}{place}/{told.get('dbname', '')}"

    def __str__(self) -> str:
        return self._shown

    __repr__ = __str__


def _not_understood() -> CortexError:
    """Never quotes the URL, nor a part of it."""
    message = (
        "the ledger's URL cannot be understood: it should be like postgresql://USER@HOST:5432/DATABASE; in a name or a"
        " password @ is written %40, : %3A, / %2F and % %25"
    )
    return CortexError("ledger.invalid_url", message)


class Connection:
    """What looks like SQLite's connection. See `engine.Connection`."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Rows:
        """Run a statement; in a pipeline that is when its rows are asked for, or at the pipeline's end."""
        text, names = translated(statement)
        # With names it is a mapping.
        numbered = [values[name] for name in names] if names else values  # type: ignore[call-overload]
        return self.raw.execute(text, numbered, binary=True)


def connect(address: Address, *, reading: bool = False) -> Raw:
    """A connection whose commits are on disk when they return. Used by one thread at a time."""
    raw: Raw = psycopg.connect(autocommit=True, cursor_factory=psycopg.RawCursor, **address.parameters)  # type: ignore[arg-type]  # libpq's parameters are texts
    try:
        for type_ in (int, bool):
            raw.adapters.register_dumper(type_, Int8BinaryDumper)
        raw.adapters.register_dumper(str, _TextDumper)
        raw.execute(_SESSION.encode())
        if reading:
            raw.execute(_READING.encode())
    except BaseException:
        raw.close()
        raise
    return raw


class _TextDumper(StrBinaryDumper):
    """PostgreSQL's texts cannot hold NUL, which a container's answer may: it is shown as its symbol."""

    def dump(self, obj: str) -> bytes | None:
        """See the base."""
        return obj.replace("\0", "\N{SYMBOL FOR NULL}").encode()
