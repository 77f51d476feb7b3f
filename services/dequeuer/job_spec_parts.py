"""Puts /cortex/spec/job.json together where it is too large for one config map.

A pod mounts its parts (`000.part`, ... in order) and the digest of the whole. Kubernetes may change the parts one after
the other: only what has the digest counts. An init container writes the file before the user's containers start
(`write_once`); the dequeuer writes it anew when it changes (`keep`).
"""

import asyncio
import hashlib
import logging
import time
from pathlib import Path

from services.common import exit_codes

log = logging.getLogger(__name__)

DIGEST_FILE = "digest"
DOCUMENT_FILE = "job.json"
LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


def read_parts(parts: Path) -> bytes | None:
    """The whole document; None while its parts are not of one."""
    try:
        document = b"".join(path.read_bytes() for path in sorted(parts.glob("*.part")))
        digest = (parts / DIGEST_FILE).read_text().strip()
    except OSError:
        return None
    return document if hashlib.sha256(document).hexdigest() == digest else None


def write_document(directory: Path, document: bytes) -> None:
    """Put the document in place: readers find the old one or the new one, never a part. Raises OSError."""
    new = directory / f".{DOCUMENT_FILE}.new"
    new.write_bytes(document)
    new.chmod(0o644)
    new.replace(directory / DOCUMENT_FILE)


def write_once(parts: Path, directory: Path) -> int:
    """Write the document as soon as all parts are there; returns an exit code."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (document := read_parts(parts)) is None:
        if time.monotonic() > until:
            log.error("the parts of the job's specification in %s do not fit together", parts)
            return exit_codes.FAILED
        time.sleep(0.5)
    write_document(directory, document)
    return exit_codes.DONE


async def keep(parts: Path, directory: Path) -> None:
    """Write the document whenever it has changed, for ever."""
    seen = _version(parts)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := _version(parts)) == seen:
            continue
        document = await asyncio.to_thread(read_parts, parts)
        if document is not None:
            await asyncio.to_thread(write_document, directory, document)
            seen = now


def _version(parts: Path) -> str:
    """Changes with the mounted directory: Kubernetes puts a new one behind a link."""
    try:
        return str((parts / "..data").readlink())
    except OSError:
        return ""
