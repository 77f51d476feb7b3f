"""Reads plain values key by key and says exactly what is wrong, where, and what would be right.

A `Place` knows the way from the file to a value, a `Section` is a mapping at a place. A key given as null counts as
not given.
"""

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.common.errors import CortexError
from services.scheduler.domain.api_config.document import Value

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: `hello.yaml: hello-world: pod.containers[1].image`."""

    owner: str
    """The file, and the API in it once its name is known."""
    path: str = ""

    def key(self, key: str) -> "Place":
        """The value under a key of this mapping."""
        return Place(self.owner, f"{self.path}.{key}" if self.path else key)

    def index(self, index: int) -> "Place":
        """The value at an index of this list."""
        return Place(self.owner, f"{self.path}[{index}]")

    def error(self, kind: str, text: str) -> CortexError:
        """An error about the value here."""
        return CortexError(kind, f"{self}: {text}")

    def __str__(self) -> str:
        return f"{self.owner}: {self.path}" if self.path else self.owner


def show(value: Value) -> str:
    """A value as a message shows it: as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping in the configuration."""

    place: Place
    values: dict[str, Value]

    def require_known(self, known: Sequence[str], hints: dict[str, str] | None = None) -> None:
        """Refuse every key that is not known (`configreader.unsupported_key`). `hints` explains likely ones."""
        for key in self.values:
            if key not in known:
                hint = (hints or {}).get(key) or _closest(key, known)
                raise self.place.key(key[:100]).error(
                    "configreader.unsupported_key", f"this key is not supported; {hint}"
                )

    def given(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def require(self, key: str, what: str) -> Value:
        """The value of a key that must be there."""
        value = self.values.get(key)
        if value is not None:
            return value
        if key in self.values:
            raise self.place.key(key).error("configreader.cannot_be_null", f"null is not allowed; give {what}")
        raise self.place.key(key).error("configreader.must_be_defined", f"this key is missing; give {what}")

    def section(self, key: str) -> "Section | None":
        """A mapping, or None when not given."""
        return section(self.place.key(key), self.values[key]) if self.given(key) else None

    def string(self, key: str, what: str) -> str:
        """A string that must be there and not empty."""
        value = string(self.place.key(key), self.require(key, what))
        if not value:
            raise self.place.key(key).error("configreader.cannot_be_empty", f'"" is not allowed; give {what}')
        return value

    def integer(self, key: str, default: int | None, low: int, high: int = INT32_MAX) -> int:
        """A whole number between `low` and `high`. Without a default it must be there."""
        if default is not None and not self.given(key):
            return default
        value = self.require(key, f"a whole number of at least {low}")
        return integer(self.place.key(key), value, low, high)

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, or None when not given."""
        return strings(self.place.key(key), self.values[key]) if self.given(key) else None


def section(place: Place, value: Value) -> Section:
    """The value as a mapping."""
    if not isinstance(value, dict):
        raise _wrong_type(place, value, "a mapping of keys to values")
    return Section(place, value)


def items(place: Place, value: Value) -> list[tuple[Place, Value]]:
    """The value's items as a list, each with its place."""
    if not isinstance(value, list):
        raise _wrong_type(place, value, "a list")
    return [(place.index(index), item) for index, item in enumerate(value)]


def string(place: Place, value: Value) -> str:
    """The value as a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        raise _wrong_type(place, value, "a string", "; put what is written there in quotes")
    raise _wrong_type(place, value, "a string")


def strings(place: Place, value: Value, hint: str = "") -> tuple[str, ...]:
    """The value as a list of strings."""
    if not isinstance(value, list):
        raise _wrong_type(place, value, "a list of strings", hint)
    return tuple(string(at, item) for at, item in items(place, value))


def integer(place: Place, value: Value, low: int, high: int) -> int:
    """The value as a whole number between `low` and `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(place, value, "a whole number")
    if value < low:
        raise place.error(
            "configreader.must_be_greater_than_or_equal_to", f"{show(value)} is too small: {low} is the least"
        )
    if value > high:
        raise place.error(
            "configreader.must_be_less_than_or_equal_to", f"{show(value)} is too large: {high} is the most"
        )
    return value


def not_one_of(place: Place, value: int | str, reserved: Collection[int | str], why: str) -> None:
    """Refuse values that are taken (`configreader.disallowed_value`)."""
    if value in reserved:
        taken = " and ".join(show(each) for each in sorted(reserved, key=str))
        raise place.error(
            "configreader.disallowed_value", f"{show(value)} is not allowed: {taken} are reserved for {why}"
        )


def _wrong_type(place: Place, value: Value, expected: str, hint: str = "") -> CortexError:
    found = "null" if value is None else f"{_type_name(value)} {show(value)}"
    return place.error("configreader.invalid_primitive_type", f"expected {expected}, found {found}{hint}")


def _type_name(value: Value) -> str:
    names: dict[type, str] = {bool: "the boolean", str: "the string", list: "the list", dict: "the mapping"}
    return names.get(type(value), "the number")


def _closest(key: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(key[:100], known, n=1)
    if matches:
        return f"did you mean {matches[0]}?"
    return f"the keys here are {', '.join(known)}"
