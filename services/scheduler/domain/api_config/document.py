"""YAML text to plain values, within bounds.

The values are built here from the parser's events rather than by a YAML library's constructor, because a file comes
from anyone who may deploy: nesting and the expansion of aliases are bounded while the values grow, a key that is given
twice is an error, keys are strings, and dates stay the text that was written. Anchors, aliases and merge keys (`<<`)
work. Plain scalars mean what they mean in YAML 1.1 (`yes` and `on` are booleans), as Cortex read them, except that
`1:30` and `2026-01-31` are text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from services.common.errors import Category, CortexError

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"
"""What a document is made of."""

MAX_BYTES = 1024 * 1024
"""A larger file is refused."""

MAX_DEPTH = 32
"""Deeper nesting is refused. A configuration needs eight levels."""

MAX_VALUES = 100_000
"""A document of more values, aliases expanded, is refused. A text counts once more for every `_CHARACTERS_A_VALUE`."""

_CHARACTERS_A_VALUE = 10

_Node = yaml.ScalarEvent | yaml.CollectionStartEvent
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same language; a file of 1 MiB takes the other seconds

_TAG = "tag:yaml.org,2002:"
_TAGS = {None: "", "!": "str"} | {_TAG + name: name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 400  # longer numbers mean nothing here, and converting them is slow


def load(file_name: str, data: bytes) -> Value:
    """The one document that a file holds.

    Raises `CortexError`: `endpoints.form_file_must_be_provided` for an empty file, `spec.config_too_large` for one
    over `MAX_BYTES`, `configreader.invalid_yaml` (or a kind more exact) for what is not YAML or goes past the bounds.
    """
    if not data:
        raise CortexError("endpoints.form_file_must_be_provided", f"{file_name}: the file is empty; it must list APIs")
    if len(data) > MAX_BYTES:
        message = f"{file_name}: the file has {len(data)} bytes; an API configuration may have {MAX_BYTES} at most"
        raise CortexError("spec.config_too_large", message, Category.TOO_LARGE)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(file_name, line, "this is not UTF-8 text; save the file as UTF-8") from error
    try:
        return _Builder(file_name, yaml.parse(text, Loader=_Loader)).document()
    except yaml.YAMLError as error:
        raise _syntax_error(file_name, error) from error


@dataclass(frozen=True, slots=True)
class _Built:
    """A value and how many values it counts for, itself included and aliases expanded."""

    value: Value
    size: int


@dataclass
class _Builder:
    """Builds the values of one document from the parser's events, depth first."""

    file_name: str
    events: Iterator[yaml.Event]
    anchors: dict[str, _Built | None] = field(default_factory=dict)
    """What was anchored; None while it is still being built."""

    def document(self) -> Value:
        """The first document, which must be the only one."""
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):  # nothing, or nothing but comments
            return None
        root = self._build(next(self.events), 0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document starts here; put all APIs in one list")
        return root.value

    def _build(self, event: yaml.Event, depth: int) -> _Built:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, _Node)  # noqa: S101  # the parser's grammar: a node starts here
        if event.tag not in _TAGS:
            raise self._error(event, f"the tag {str(event.tag)[:100]!r} is not supported; leave it out")
        if depth > MAX_DEPTH:
            raise self._error(event, f"values are nested more than {MAX_DEPTH} levels deep")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(self._scalar(event), _size(event.value))
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self._sequence(event, depth)
        else:
            built = self._mapping(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = built
        return built

    def _alias(self, event: yaml.AliasEvent) -> _Built:
        name = str(event.anchor)
        if name not in self.anchors:
            raise self._error(event, f"the alias *{name[:100]} refers to nothing")
        built = self.anchors[name]
        if built is None:
            raise self._error(event, f"the alias *{name[:100]} refers to what it stands in")
        return built

    def _sequence(self, start: yaml.Event, depth: int) -> _Built:
        items: list[Value] = []
        size = 1
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            built = self._build(event, depth + 1)
            items.append(built.value)
            size = self._grown(start, size, built)
        return _Built(items, size)

    def _mapping(self, start: yaml.Event, depth: int) -> _Built:
        given: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        size = 1
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event)
            built = self._build(next(self.events), depth + 1)
            size = self._grown(start, size, built) + _size(key)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged = self._merged(event, built.value) | merged
            elif key in given:
                raise self._error(event, f"the key {key[:100]!r} is given twice here", "configreader.duplicated_key")
            else:
                given[key] = built.value
        return _Built(merged | given, size)

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.ScalarEvent) and isinstance(key := self._scalar(event), str):
            return key
        what = repr(event.value[:100]) if isinstance(event, yaml.ScalarEvent) else "this"
        text = f"{what} cannot be a key: keys are strings (quote it if it is one)"
        raise self._error(event, text, "configreader.non_string_key_found")

    def _merged(self, event: yaml.Event, value: Value) -> dict[str, Value]:
        merged: dict[str, Value] = {}
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self._error(event, "`<<` takes a mapping or a list of mappings")
            merged = part | merged
        return merged

    def _grown(self, start: yaml.Event, size: int, built: _Built) -> int:
        if size + built.size > MAX_VALUES:
            raise self._error(
                start, f"the document holds more than {MAX_VALUES} values or a megabyte of text, its aliases expanded"
            )
        return size + built.size

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text: str = event.value
        if "\0" in text:
            raise self._error(event, "the text holds a NUL character, which cannot be passed on to a program")
        if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error(event, "the text holds half of a surrogate pair, which is not a character")
        tag = _TAGS.get(event.tag, "str")
        if tag == "str" or (tag == "" and not event.implicit[0]):
            return text
        if len(text) > _MAX_DIGITS:
            return text
        return _plain(text)

    def _error(self, event: yaml.Event, text: str, kind: str = "configreader.invalid_yaml") -> CortexError:
        line = event.start_mark.line + 1 if event.start_mark else 1
        return _invalid(self.file_name, line, text, kind)


def _size(text: str) -> int:
    return 1 + len(text) // _CHARACTERS_A_VALUE


def _plain(text: str) -> Value:
    """What a scalar without quotes means."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(text):
        sign, unsigned = (-1, digits[1:]) if digits[0] == "-" else (1, digits.lstrip("+"))
        if unsigned.isdigit():
            return sign * int(unsigned, 8 if unsigned[0] == "0" else 10)
        return sign * int(unsigned, 0) if unsigned[2:] else text
    if _FLOAT.fullmatch(text):
        return float(digits)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.lower().replace(".", "", 1))
    return text


def _invalid(file_name: str, line: int, text: str, kind: str = "configreader.invalid_yaml") -> CortexError:
    return CortexError(kind, f"{file_name}: line {line}: {text}")


def _syntax_error(file_name: str, error: yaml.YAMLError) -> CortexError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:  # a character that YAML lacks
        return CortexError("configreader.invalid_yaml", f"{file_name}: this is not YAML: {str(error)[:300]}")
    mark, began = error.problem_mark, error.context_mark
    text = f"this is not YAML: {error.problem} (column {mark.column + 1})"
    if began is not None and began.line != mark.line:
        text += f", {error.context} that begins in line {began.line + 1}"
    return _invalid(file_name, mark.line + 1, text)
