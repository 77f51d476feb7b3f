"""From the members of a JSON object to the fields of a protobuf message, as a table says.

Only as many levels are looked at as the table has; what lies below goes on as text. Names match as in Go's
encoding/json, which Cortex used: exactly, or in another case; the last of equal names counts; `null` means not given;
an integer is written as one. What values are allowed (at least 1, exactly one input) is the scheduler's to say.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from google.protobuf.message import Message

from services.common import json_text
from services.common.errors import CortexError

MAX_WARNINGS = 20
"""So many unknown names are told; a number stands for the others."""


class Expected(Exception):  # noqa: N818  # reads as the sentence it becomes
    """A value is not what the field takes."""


Reader = Callable[[bytes], bool | int | float | str | list[int] | list[str]]
"""Reads a value's JSON text. Raises `Expected`."""


@dataclass(frozen=True)
class Field:
    """Where a member's value goes, and how it is read."""

    attribute: str
    """The field's name in the message; with dots where it is in a message of the message. A message that is read as
    true or false is there, or not."""
    read: Reader | None = None
    """For what is not an object."""
    table: "Table | None" = None
    """For an object."""
    object_attribute: str = ""
    """Where an object goes, if not to `attribute`."""

    def within(self, message: str) -> "Field":
        """The same field in a message of the message."""
        where = self.object_attribute and f"{message}.{self.object_attribute}"
        return replace(self, attribute=f"{message}.{self.attribute}", object_attribute=where)


Table = Mapping[str, Field]
"""By their names in JSON."""


def fill(message: Message, table: Table, members: Mapping[str, bytes], path: str = "") -> list[str]:
    """Set a message's fields; return the paths of the members that the table does not have.

    Raises `CortexError` (`configreader.invalid_primitive_type`) that names the field and what it takes.
    """
    unknown: list[str] = []
    for name, value in members.items():
        known = name if name in table else name.lower()
        if known not in table:
            unknown.append(path + name)
        elif value != b"null":
            unknown += _set(message, table[known], value, path + known)
    return unknown


def _set(message: Message, field: Field, value: bytes, path: str) -> list[str]:
    if field.table is not None and value.startswith(b"{"):
        parent, name = _place(message, field.object_attribute or field.attribute)
        child = getattr(parent, name)
        child.SetInParent()
        return fill(child, field.table, json_text.members(value, path), f"{path}.")
    try:
        put(message, field, value)
    except Expected as expected:
        raise _wrong_type(path, str(expected), value) from None
    return []


def put(message: Message, field: Field, value: bytes) -> None:
    """Set a field to what is not an object. Raises `Expected`."""
    if field.read is None:
        raise Expected("an object")
    try:
        found = field.read(value)
    except Expected as expected:
        raise Expected(f"{expected} or an object" if field.table is not None else str(expected)) from None
    parent, name = _place(message, field.attribute)
    if isinstance(found, list):
        getattr(parent, name)[:] = found
    elif isinstance(found, bool) and isinstance(getattr(parent, name), Message):
        parent.ClearField(name)
        if found:
            getattr(parent, name).SetInParent()
    else:
        setattr(parent, name, found)


def _place(message: Any, attribute: str) -> tuple[Any, str]:  # reached by field names, which have no types
    *parents, name = attribute.split(".")
    for parent in parents:
        message = getattr(message, parent)
    return message, name


def _wrong_type(path: str, expected: str, value: bytes) -> CortexError:
    given = f"{path}: must be {expected}, not {json_text.described(value)}"
    return CortexError("configreader.invalid_primitive_type", given)


def warnings(unknown: list[str]) -> list[str]:
    """Sentences about what was passed over."""
    told = [f"{json_text.shortened(name.encode())}: unknown field, ignored" for name in unknown[:MAX_WARNINGS]]
    more = len(unknown) - len(told)
    return [*told, f"{more} more unknown fields, ignored"] if more else told


# Readers

_INTEGER = re.compile(rb"-?\d{1,4000}")  # more digits than Python turns into a number
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?")

_BOOLEAN = msgspec.json.Decoder(bool)
_STRING = msgspec.json.Decoder(str)
_STRINGS = msgspec.json.Decoder(list[str])
_INTEGERS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]])


def boolean(value: bytes) -> bool:
    """True or false."""
    try:
        return _BOOLEAN.decode(value)
    except msgspec.DecodeError:
        raise Expected("true or false") from None


def integer(value: bytes) -> int:
    """An integer of 64 bits, written as one."""
    number = int(value) if _INTEGER.fullmatch(value) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise Expected("an integer" if number is None else "an integer of 64 bits")
    return number


def number(value: bytes) -> float:
    """Any number that is not too large for 64 bits."""
    found = float(value) if _NUMBER.fullmatch(value) else math.nan
    if not math.isfinite(found):
        raise Expected("a number" if math.isnan(found) else "a number of 64 bits")
    return found


def string(value: bytes) -> str:
    """A string."""
    try:
        return _STRING.decode(value)
    except msgspec.DecodeError:
        raise Expected("a string") from None


def strings(value: bytes) -> list[str]:
    """A list of strings."""
    try:
        return _STRINGS.decode(value)
    except msgspec.DecodeError:
        raise Expected("a list of strings") from None


def integers(value: bytes) -> list[int]:
    """A list of integers, of 32 bits each."""
    try:
        return _INTEGERS.decode(value)
    except msgspec.DecodeError:
        raise Expected("a list of integers") from None


def array(value: bytes) -> str:
    """A list, as text."""
    if not value.startswith(b"["):
        raise Expected("a list")
    return value.decode()


def text(value: bytes) -> str:
    """Anything, as text."""
    return value.decode()
