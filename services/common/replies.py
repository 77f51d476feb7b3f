"""A container's reply as JSON: how it is read back, and so how large it may be."""

import msgspec

from services.common import json_text
from services.common.errors import CortexError

MAX_KEPT_REPLY_BYTES = 8 * 1024 * 1024
"""A kept reply is at most this long, as it came and as `reply_json` tells it. One fits any gRPC message of ours."""

SURELY_FITS_BYTES = MAX_KEPT_REPLY_BYTES // 6 - 2
"""A reply of so many bytes fits whatever it holds: a JSON string takes six for one at most (`\\u0000`), and quotes."""

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def reply_json(reply: bytes) -> bytes:
    """A reply as JSON text of one line, in UTF-8.

    A reply that is JSON stays as it is byte for byte, except that white space around it is cut off and line breaks
    between its tokens become spaces. Anything else, an empty reply too, becomes a string; bytes that are not UTF-8 are
    replaced by U+FFFD in it.
    """
    text = reply.strip(json_text.WHITE_SPACE)
    try:
        json_text.check_utf8(text, "")
        json_text.check_depth(text, "")
        json_text.check_value(text, "")
    except CortexError:
        return msgspec.json.encode(reply.decode(errors="replace"))
    return text.translate(_LINE_BREAKS)  # there are none inside of its strings: JSON escapes them
