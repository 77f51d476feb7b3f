"""Checking JSON without parsing what is in it, so that what is passed on is what was sent, byte for byte.

`members` splits a document at its top level. What is below is validated by msgspec, which skips over a value about as
fast as memory is read, and by two checks for what it leaves open:

- It descends by recursion. `too_deep` measures nesting first, with operations on whole strings: quotes and brackets are
  all that is kept, quotes are split away together with what is inside of strings, and what is left is peeled.
- It refuses `\\ud800` alone, which is correct JSON (RFC 8259 section 8.2) and what Python writes for half a pair.
  Only where that happens, `\\u` in front of surrogates is replaced by a character that the document does not hold.
"""

import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from services.common.errors import CortexError
from services.common.names import MAX_JSON_DEPTH

MALFORMED = "json.malformed"
"""The kind of every error about JSON as such."""

_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_PEELINGS = 8
_STEP = [{"[": 1, "]": -1}.get(chr(byte), 0) for byte in range(256)]

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_POSITION = re.compile(r"^(.*) \(byte (\d+)\)$")
_SURROGATE = re.compile(rb"(?<!\\)((?:\\\\)*)\\u(?=[dD][89a-fA-F][0-9a-fA-F]{2})")
_TYPES = {b"{": "the object", b"[": "the array", b'"': "the string", b"t": "", b"f": "", b"n": ""}


def check(text: bytes) -> None:
    """Raise `CortexError` unless this is UTF-8 without a byte order mark and not nested too deep."""
    if not text.strip():
        raise CortexError(MALFORMED, "the request has no body; a JSON object is expected")
    if text.startswith(b"\xef\xbb\xbf"):
        raise CortexError(MALFORMED, "the body begins with a byte order mark (EF BB BF); JSON must not have one")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise CortexError(MALFORMED, f"the body is not valid UTF-8 at byte {error.start}: {error.reason}") from None
    if too_deep(text):
        raise CortexError(MALFORMED, f"the body is nested deeper than {MAX_JSON_DEPTH} arrays and objects")


def members(text: bytes, name: str) -> dict[str, bytes]:
    """The members of the object that this JSON text is, each value as its bytes. The last of equal names counts.

    `name` says in messages what the text is. Raises `CortexError` (`json.malformed`).
    """
    try:
        return {key: bytes(value) for key, value in _MEMBERS.decode(text).items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if _SURROGATE.search(text) and (mask := _unused_character(text)):
            return dict(_masked_members(text, mask, name))
        raise _malformed(text, name, error) from None


def _masked_members(text: bytes, mask: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    masked = _SURROGATE.sub(rb"\1" + mask, text)
    try:
        found = _MEMBERS.decode(masked)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _malformed(text, name, error) from None
    for key, value in found.items():
        yield key.replace(mask.decode(), r"\u"), bytes(value).replace(mask, rb"\u")


def _unused_character(text: bytes) -> bytes | None:
    """A character of two bytes, as many as `\\u` has, so that positions in messages stay right."""
    encoded = (chr(code).encode() for code in range(0x80, 0x800))
    return next((character for character in encoded if character not in text), None)


def too_deep(text: bytes) -> bool:
    """True when a JSON text is nested deeper than allowed. A text that is not JSON may count as a little deeper."""
    if text.count(b"[") + text.count(b"{") <= MAX_JSON_DEPTH:
        return False
    brackets = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(_ONE_KIND, _ALL_BUT_STRUCTURE)
    if b'"' in brackets:
        # Two quotes side by side change nothing about what is inside of a string: most are gone after this.
        brackets = b"".join(brackets.replace(b'""', b"").split(b'"')[::2])
    peeled = 0
    while peeled < _PEELINGS and brackets:  # each peeling takes one level off and most of the length
        brackets = brackets.replace(b"[]", b"")
        peeled += 1
    return peeled + max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_JSON_DEPTH


def described(value: bytes) -> str:
    """A JSON value for messages, such as `the string "two"`."""
    return f"{_TYPES.get(value[:1], 'the number')} {shortened(value)}".strip()


def shortened(value: bytes, limit: int = 40) -> str:
    """A text for messages."""
    text = value[: 4 * limit].decode(errors="replace")
    return text if len(text) <= limit else f"{text[:limit]}..."


def _malformed(text: bytes, name: str, error: Exception) -> CortexError:
    if isinstance(error, RecursionError):
        return CortexError(MALFORMED, f"{name} is nested deeper than {MAX_JSON_DEPTH} arrays and objects")
    if isinstance(error, msgspec.ValidationError):
        return CortexError(MALFORMED, f"{name} must be a JSON object, not {described(text.strip())}")
    if match := _POSITION.match(str(error)):
        what, offset = match[1].removeprefix("JSON is malformed: "), int(match[2])
        return CortexError(MALFORMED, f"{name} is not valid JSON: {what} at {_place(text, offset)}")
    return CortexError(MALFORMED, f"{name} is not valid JSON: it ends in the middle, at {_place(text, len(text))}")


def _place(text: bytes, offset: int) -> str:
    line_start = text.rfind(b"\n", 0, offset) + 1
    column = len(text[line_start:offset].decode(errors="replace")) + 1
    line = text.count(b"\n", 0, offset) + 1
    return f"line {line} column {column} (byte {offset})"
