"""Looking into JSON without changing a byte of it.

msgspec finds the elements of an array as ranges of the text (`Raw`), at memory speed, and refuses what is not JSON.
It leaves two things to us. It lets invalid UTF-8 inside of strings pass, so that is checked apart. And it refuses
half of a surrogate pair (`\\ud800`), which is correct JSON (RFC 8259, section 8.2) and what Python writes for one.
Where it refuses a text, the backslashes of surrogates and escaped backslashes are masked by bytes that no UTF-8 text
contains, and it is asked again; `unmasked` undoes that.
"""

import codecs
import re
from itertools import accumulate

import msgspec

WHITE_SPACE = b" \t\r\n"


class _AnyArray(msgspec.Struct, array_like=True):
    """An array whose elements are read and forgotten."""


_ANY_ARRAY = msgspec.json.Decoder(_AnyArray)
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_UTF8_CHUNK = 65536
_SURROGATE = re.compile(rb"\\u(?=[dD][89a-fA-F][0-9a-fA-F]{2})")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = [{"[": 1, "]": -1}.get(chr(byte), 0) for byte in range(256)]
_PEELINGS = 8


def elements(text: bytes) -> list[msgspec.Raw]:
    """The elements of a JSON array in UTF-8, without the white space around them, possibly masked.

    Raises `msgspec.DecodeError`, and `RecursionError` for what is nested too deep to look at.
    """
    try:
        return _ELEMENTS.decode(text)
    except msgspec.DecodeError:
        masked = _masked(text)
        if masked == text:
            raise
        return _ELEMENTS.decode(masked)


def error_in_array(text: bytes) -> str:
    """What is wrong with a text that is no JSON array, and where; `""` for one that is. Needs no memory."""
    try:
        _ANY_ARRAY.decode(_masked(text))
    except msgspec.DecodeError as error:
        return str(error).removeprefix("JSON is malformed: ")
    return ""


def _masked(text: bytes) -> bytes:
    if b"\\u" not in text:
        return text
    # Escaped backslashes first, from left to right: what is left in front of a `u` is the start of an escape.
    return _SURROGATE.sub(b"\xffu", text.replace(b"\\\\", b"\xfe\xfe"))


def unmasked(text: bytes) -> bytes:
    """What was sent."""
    return text.replace(b"\xff", b"\\").replace(b"\xfe", b"\\")


def check_utf8(text: bytes) -> None:
    """Raise `UnicodeDecodeError` unless this is UTF-8. In constant memory."""
    if text.isascii():
        return
    view = memoryview(text)
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _UTF8_CHUNK):
        decoder.decode(view[start : start + _UTF8_CHUNK])
    decoder.decode(b"", final=True)


def nested_deeper(text: bytes, limit: int) -> bool:
    """Whether arrays and objects in this JSON value stand more than `limit` deep in each other."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", text).translate(_ONE_KIND, _ALL_BUT_BRACKETS)
    peeled = 0
    while brackets and peeled < _PEELINGS:  # each takes one level off, and usually most of the length
        brackets = brackets.replace(b"[]", b"")
        peeled += 1
    return peeled + max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > limit
