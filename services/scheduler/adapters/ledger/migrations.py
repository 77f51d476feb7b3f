"""The tables' versions: numbered files of statements, run in order, each once.

They are written in SQLite's words; an engine that calls some of them otherwise translates. All that is missing runs in
the one transaction that opens the ledger, so that an end in the middle leaves nothing half done.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from services.common.errors import Category, CortexError
from services.scheduler.adapters.ledger.engine import Connection, Identity

_DIRECTORY = Path(__file__).with_name("schema")


@lru_cache
def migrations() -> tuple[str, ...]:
    """The files' texts; a ledger's version is how many it has."""
    return tuple(file.read_text() for file in sorted(_DIRECTORY.glob("*.sql")))


def bring_up(connection: Connection, *, new: bool, where: str, translated: Callable[[str], str] = str) -> Identity:
    """Make the tables, or bring them up to this release, and count this opening. Inside of a transaction.

    Raises `CortexError` (`ledger.version_not_supported`) when a newer release has written them.
    """
    known = migrations()
    version = 0 if new else connection.execute("SELECT version FROM ledger").fetchone()[0]
    if version > len(known):
        message = (
            f"the ledger {where} was written by a newer release (its version is {version}, this release knows"
            f" {len(known)}): run that release, or choose another place for the ledger"
        )
        raise CortexError("ledger.version_not_supported", message, Category.UNSUPPORTED)
    for text in known[version:]:
        for statement in _statements(text):
            connection.execute(translated(statement))
    if new:
        connection.execute("INSERT INTO ledger VALUES (0, 0, 0, ?)", (secrets.token_bytes(32),))
    connection.execute(
        "UPDATE ledger SET version = ?, generation = generation + 1, transaction_number = 0", (len(known),)
    )
    generation, secret = connection.execute("SELECT generation, secret FROM ledger").fetchone()
    return Identity(generation, bytes(secret))


def _statements(text: str) -> Iterator[str]:
    """A file's statements, without their comments."""
    for statement in re.sub(r"--.*", "", text).split(";"):
        if statement.strip():
            yield statement.strip()
