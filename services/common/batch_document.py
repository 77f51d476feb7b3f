"""A job's batches as JSON: what the gateway answers with, and what is written where a job's results are to be stored.

Both are made here, so that they are the same to the letter.
"""

from typing import Any

import msgspec

from services.common.job_document import rfc3339

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def batch_document(
    *,
    index: int,
    state: str,
    attempts: int,
    http_status: int,
    error: str,
    ended_ns: int | None,
    items: bytes,
) -> dict[str, Any]:
    """A batch. `items` go in as the text that they are; null where they cannot be read any more (empty)."""
    return {
        "index": index,
        "state": state,
        "attempts": attempts,
        "http_status": http_status,
        "error": error,
        "time": rfc3339(ended_ns) if ended_ns is not None else None,
        "items": msgspec.Raw(items) if items else None,
    }


def reply_document(index: int, reply: bytes) -> dict[str, Any]:
    """What the container answered to a batch. `reply` goes in as the text that it is."""
    return {"batch": index, "reply": msgspec.Raw(reply) if reply else None}


def line(document: Any) -> bytes:
    """A value on a line of its own. What goes in as text may have line ends, but only between its tokens."""
    return msgspec.json.encode(document).translate(_ONE_LINE) + b"\n"
