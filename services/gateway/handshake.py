"""Whether a request for a websocket is sound (RFC 6455, section 4.2.1).

The `websockets` library reads the request a second time, with stricter limits than HTTP has, and uvicorn sends nothing
of what it says of a bad one. So a bad one must not get there.
"""

import base64
import binascii
from collections.abc import Sequence

from services.gateway.problems import Problem

VERSION = b"13"
MAX_LINE_BYTES = 8000
MAX_HEADERS = 100
_KEY_BYTES = 16


def problem_with(http_version: str, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
    """What a client is told about a bad request; None for a sound one. Names of headers are in lower case."""
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        given.setdefault(name, []).append(value)
    if given.get(b"sec-websocket-version") != [VERSION]:
        hint = {"Sec-WebSocket-Version": VERSION.decode()}
        return Problem(426, "endpoints.websocket_version", "the websocket protocol's version must be 13", hint)
    if http_version != "1.1" or not url.isascii() or b"transfer-encoding" in given:
        return _bad("it must be a GET of HTTP/1.1 without a body")
    if given.get(b"content-length", [b"0"]) != [b"0"]:
        return _bad("it must have no body")
    if len(keys := given.get(b"sec-websocket-key", [])) != 1 or not _is_key(keys[0]):
        return _bad("it must have one Sec-WebSocket-Key of 16 bytes in base64")
    longest = max(len(url), *(len(name) + len(value) for name, value in headers))
    if longest > MAX_LINE_BYTES or len(headers) > MAX_HEADERS:
        text = f"a request for a websocket has lines of at most {MAX_LINE_BYTES} bytes and {MAX_HEADERS} headers"
        return Problem(431, "endpoints.headers_too_large", text)
    return None


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _bad(what: str) -> Problem:
    return Problem(400, "endpoints.malformed_request", f"this request for a websocket is not sound: {what}")
