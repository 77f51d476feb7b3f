"""A container's reply as JSON: how it is read back, and so how large it may be."""

import msgspec

from services.common import json_text
from services.common.errors import CortexError

MAX_KEPT_REPLY_BYTES = 4_000_000
"""A kept reply is at most this long, as it came and as `reply_json` tells it: in a message it is below the 4 MiB that
gRPC clients take by default, and a dequeuer that holds a few stays small.
"""

_SURELY_FITS_BYTES = MAX_KEPT_REPLY_BYTES // 6 - 2
"""A reply of so many bytes fits whatever it holds: a JSON string takes six for one at most (`\\u0000`), and quotes."""

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def reply_json(reply: bytes) -> bytes:
    """A reply as JSON text of one line, in UTF-8.

    A reply that is JSON stays as it is byte for byte, except that white space around it is cut off and line breaks
    between its tokens become spaces. Anything else, an empty reply too, becomes a string; bytes that are not UTF-8 are
    replaced by U+FFFD in it.
    """
    if not _is_json(reply):
        return msgspec.json.encode(reply.decode(errors="replace"))
    # There are no line breaks inside of its strings: JSON escapes them.
    return reply.strip(json_text.WHITE_SPACE).translate(_LINE_BREAKS)


def fits(reply: bytes) -> bool:
    """Whether `reply_json` tells it in MAX_KEPT_REPLY_BYTES. Takes no memory to speak of where it does."""
    if len(reply) <= _SURELY_FITS_BYTES:
        return True
    if len(reply) > MAX_KEPT_REPLY_BYTES:
        return False
    return _is_json(reply) or len(reply_json(reply)) <= MAX_KEPT_REPLY_BYTES


def _is_json(text: bytes) -> bool:
    try:
        json_text.check_utf8(text, "")
        json_text.check_depth(text, "")  # before the decoder, which recurses
        json_text.check_value(text, "")
    except CortexError:
        return False
    return True
