"""Looking into JSON text without changing a byte of it.

msgspec finds the members of an object and the elements of an array as ranges of the text (`Raw`), about as fast as
memory is read, and refuses what is not JSON. It leaves three things open:

- It lets invalid UTF-8 inside of strings pass: `check_utf8`.
- It descends by recursion: `nested_deeper` measures before, with operations on whole strings. Quotes and brackets are
  all that is kept, quotes are split away together with what is inside of strings, and what is left is peeled.
- It refuses half of a surrogate pair (`\\ud800`), which is correct JSON (RFC 8259, section 8.2) and what Python writes
  for one. Where it refuses a text, escaped backslashes and the `\\u` in front of a `d` are *masked*, by two bytes each
  that the text does not hold, so that places stay right, and it is asked again.
"""

import codecs
import re
from typing import TypeVar

import msgspec

from services.common.errors import CortexError
from services.common.names import MAX_JSON_DEPTH

MALFORMED = "json.malformed"
"""The kind of every error about JSON as such."""

WHITE_SPACE = b" \t\r\n"


class _AnyArray(msgspec.Struct, array_like=True):
    """An array whose elements are read and forgotten."""


_ARRAY = msgspec.json.Decoder(_AnyArray)
_VALUE = msgspec.json.Decoder(msgspec.Raw)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_REFUSALS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

_Found = TypeVar("_Found")
_Masks = tuple[bytes, bytes]
"""What stands for `\\\\\\\\` (an escaped backslash) and for `\\\\u`."""

_NEVER_IN_UTF8: _Masks = (b"\xfe\xfe", b"\xff\xff")

_POSITION = re.compile(r"^(.*) \(byte (\d+)\)$")
_NO_ARRAY = re.compile(r"Expected `array`, got `(\w+)`")
_TYPES = {b"{": "the object", b"[": "the array", b'"': "the string", b"t": "", b"f": "", b"n": ""}

_UTF8_CHUNK = 65536
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_PEELINGS = 8


def check_utf8(text: bytes, name: str) -> None:
    """Raise `CortexError` (`json.malformed`) unless this is UTF-8. In constant memory."""
    if text.isascii():
        return
    view = memoryview(text)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _UTF8_CHUNK):
            decoder.decode(view[start : start + _UTF8_CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        try:
            text.decode()  # to know where
        except UnicodeDecodeError as error:
            what = f"{name} is not valid UTF-8 at byte {error.start}: {error.reason}"
            raise CortexError(MALFORMED, what) from None


def check_depth(text: bytes, name: str) -> None:
    """Raise `CortexError` (`json.malformed`) for a JSON text that is nested deeper than MAX_JSON_DEPTH."""
    if nested_deeper(text, MAX_JSON_DEPTH):
        raise _too_deep(name)


def nested_deeper(text: bytes, limit: int) -> bool:
    """Whether arrays and objects stand more than `limit` deep in each other. A text that is not JSON may count more."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = text.translate(_ONE_KIND, _ALL_BUT_STRUCTURE)
    if b'"' in brackets:
        # Two quotes side by side change nothing about what is inside of a string: most are gone after this.
        brackets = b"".join(brackets.replace(b'""', b"").split(b'"')[::2])
    peeled = 0
    while peeled < _PEELINGS and brackets:  # each peeling takes one level off and most of the length
        brackets = brackets.replace(b"[]", b"")
        peeled += 1
    level = deepest = 0
    for rise in brackets.split(b"]["):  # one down and one up again changes nothing about how high it goes
        opened = rise.count(b"[")
        if level + opened > deepest:
            deepest = level + opened
        level += opened - (len(rise) - opened)
    return peeled + deepest > limit


def members(text: bytes, name: str) -> dict[str, bytes]:
    """The members of the object that this JSON text is, each value as its bytes. The last of equal names counts.

    `name` says in messages what the text is. Raises `CortexError` (`json.malformed`).
    """
    try:
        return {key: bytes(value) for key, value in _MEMBERS.decode(text).items()}
    except _REFUSALS:
        masks = _unused_characters(text)  # names must be UTF-8
        found = _decode_masked(_MEMBERS, text, name, masks).items()
        return {unmasked(key.encode(), masks).decode(): unmasked(bytes(value), masks) for key, value in found}


def elements(text: bytes) -> list[msgspec.Raw]:
    """The elements of a JSON array in UTF-8, without the white space around them, possibly masked: see `unmasked`.

    Raises `msgspec.DecodeError`, and `RecursionError` for what is nested too deep to look at.
    """
    try:
        return _ELEMENTS.decode(text)
    except msgspec.DecodeError:
        if (masked := _masked(text, _NEVER_IN_UTF8)) is text:
            raise
        return _ELEMENTS.decode(masked)


def values(text: bytes) -> list[msgspec.Raw]:
    """The values of a text in which they follow each other, with or without white space between them.

    Raises `msgspec.DecodeError` for what is not that, and for half of a surrogate pair: `value_end` tells which. Raises
    `RecursionError` for what is nested too deep to look at.
    """
    return _VALUE.decode_lines(text)


class NotJson(Exception):  # noqa: N818 - a finding that somebody else makes an error of
    """Where a text stops being JSON, and why."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what = what
        self.offset = offset


def value_end(text: memoryview) -> int | None:
    """Where the value ends that the text begins with; None when the text may be the beginning of one.

    A number that goes on to the text's end has ended there. Raises `NotJson` (for half of a surrogate pair too, where
    the text is not `masked`), and `RecursionError` for what is nested too deep to look at.
    """
    try:
        return len(_VALUE.decode(text))
    except msgspec.DecodeError as error:
        message = str(error)
    if not (match := _POSITION.match(message)):
        return None
    what, offset = match[1].removeprefix("JSON is malformed: "), int(match[2])
    if what == "trailing characters":
        return len(bytes(text[: offset - 1]).rstrip(WHITE_SPACE))
    if offset >= len(text):  # how a number is refused that has only begun
        return None
    raise NotJson(what, offset)


def masked(text: bytes) -> bytes:
    """The text with marks of the same lengths for what msgspec refuses although it is JSON; mostly the text itself."""
    return _masked(text, _NEVER_IN_UTF8)


def check_array(text: bytes, name: str) -> None:
    """Raise `CortexError` unless this is an array in JSON: `configreader.invalid_primitive_type` or `json.malformed`.

    Needs hardly any memory.
    """
    _decode_masked(_ARRAY, text, name, _NEVER_IN_UTF8)


def check_value(text: bytes, name: str) -> None:
    """Raise `CortexError` (`json.malformed`) unless this is JSON."""
    _decode_masked(_VALUE, text, name, _NEVER_IN_UTF8)


def _decode_masked(decoder: msgspec.json.Decoder[_Found], text: bytes, name: str, masks: _Masks) -> _Found:
    try:
        return decoder.decode(_masked(text, masks))
    except _REFUSALS as error:
        raise _malformed(text, name, error) from None


def unmasked(text: bytes, masks: _Masks = _NEVER_IN_UTF8) -> bytes:
    """What was sent."""
    return text.replace(masks[1], rb"\u").replace(masks[0], rb"\\")


def _masked(text: bytes, masks: _Masks) -> bytes:
    if b"\\" not in text or (rb"\ud" not in text and rb"\uD" not in text):  # the first is the quickest to see
        return text
    backslashes, escape = masks
    # Escaped backslashes first, from left to right: what is left in front of a `u` is the start of an escape.
    masked = text.replace(rb"\\", backslashes).replace(rb"\ud", escape + b"d").replace(rb"\uD", escape + b"D")
    return re.sub(re.escape(escape) + rb"(?![dD][0-9a-fA-F]{3})", rb"\\u", masked)  # a mistake is left to be found


def _unused_characters(text: bytes) -> _Masks:
    characters = (chr(code).encode() for code in range(0x80, 0x800))  # all that have two bytes
    unused = (character for character in characters if character not in text)
    return next(unused, _NEVER_IN_UTF8[0]), next(unused, _NEVER_IN_UTF8[1])


def described(value: bytes) -> str:
    """A JSON value for messages, such as `the string "two"`."""
    return f"{_TYPES.get(value[:1], 'the number')} {shortened(value)}".strip()


def shortened(value: bytes, limit: int = 40) -> str:
    """A text for messages."""
    text = value[: 4 * limit].decode(errors="replace")
    return text if len(text) <= limit else f"{text[:limit]}..."


def _malformed(text: bytes, name: str, error: Exception) -> CortexError:
    if isinstance(error, RecursionError):
        return _too_deep(name)
    if isinstance(error, msgspec.ValidationError):
        if found := _NO_ARRAY.match(str(error)):
            return CortexError("configreader.invalid_primitive_type", f"{name}: expected a list, found {found[1]}")
        return CortexError(MALFORMED, f"{name} must be a JSON object, not {described(text.strip())}")
    if match := _POSITION.match(str(error)):
        what, offset = match[1].removeprefix("JSON is malformed: "), int(match[2])
        return CortexError(MALFORMED, f"{name} is not valid JSON: {what} at {_place(text, offset)}")
    return CortexError(MALFORMED, f"{name} is not valid JSON: it ends in the middle, at {_place(text, len(text))}")


def _too_deep(name: str) -> CortexError:
    return CortexError(MALFORMED, f"{name} is nested deeper than {MAX_JSON_DEPTH} arrays and objects")


def _place(text: bytes, offset: int) -> str:
    line = text.count(b"\n", 0, offset) + 1
    before = text[text.rfind(b"\n", 0, offset) + 1 : offset].decode(errors="replace")
    return f"line {line} column {len(before) + 1} (byte {offset})"
