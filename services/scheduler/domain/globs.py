"""Which files a submission means: `includes` and `excludes`, globs against whole URIs.

`*` is any number of characters but no `/`, `**` any number of any, `?` one that is not `/`, `[abc]` or `[a-z]` one of
those, `[!abc]` or `[!a-z]` one that is not (which may be `/`), `{one,two}` either, and `\\` takes its meaning from what
follows. A class is either a list or one range. Braces may hold anything, braces too; outside of them a comma is a
comma. These are the rules of gobwas/glob with `/` as separator, which Cortex used; what that let pass by oversight (a
brace that is never closed, a backslash at the end) is refused.

A glob becomes a machine without memory of the way: its elements are numbered, a set of them that may come next is an
integer of one bit each, and a character leads from set to set. Nothing is tried twice, however hostile glob and name
are, and steps that have been seen are remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from services.common.errors import CortexError

MAX_GLOB_CHARACTERS = 4096

_REMEMBERED_STEPS = 4096


class Files:
    """What `includes` and `excludes` say together."""

    def __init__(self, includes: Sequence[str], excludes: Sequence[str], place: str) -> None:
        """`place` is where the lists stand in the submission. Raises `CortexError` (`batchapi.invalid_glob`)."""
        self._includes = [Glob(glob, f"{place}.includes[{index}]") for index, glob in enumerate(includes)]
        self._excludes = [Glob(glob, f"{place}.excludes[{index}]") for index, glob in enumerate(excludes)]

    def has(self, uri: str) -> bool:
        """Whether a file is meant: matched by any of the includes, if there are any, and by none of the excludes."""
        included = not self._includes or any(glob.matches(uri) for glob in self._includes)
        return included and not any(glob.matches(uri) for glob in self._excludes)


class Glob:
    """A pattern, ready to be matched."""

    def __init__(self, text: str, place: str) -> None:
        """`place` says in messages where the glob stands. Raises `CortexError` (`batchapi.invalid_glob`)."""
        machine = _Parser(text, place).machine()
        self._machine = machine
        self._jumps = [(1 << source, targets) for source, targets in sorted(machine.jumps.items())]
        self._accepts = 1 << machine.size
        self._start = self._settled(1)
        self._steps: dict[tuple[int, str], int] = {}

    def matches(self, text: str) -> bool:
        """Whether the glob describes the whole text."""
        steps = self._steps
        now = self._start
        for character in text:
            step = (now, character)
            known = steps.get(step)
            now = self._step(step) if known is None else known
            if not now:
                return False
        return bool(now & self._accepts)

    def _step(self, step: tuple[int, str]) -> int:
        now, character = step
        machine = self._machine
        passing = machine.literals.get(character, 0)
        staying = machine.any_number
        if character != "/":
            passing |= machine.one_in_path
            staying |= machine.any_number_in_path
        for one in machine.classes:
            if one.has(character):
                passing |= one.elements
        found = self._settled(((now & passing) << 1) | (now & staying))
        if len(self._steps) >= _REMEMBERED_STEPS:
            self._steps.clear()
        self._steps[step] = found
        return found

    def _settled(self, now: int) -> int:
        """With all that is reached without a character. Jumps lead forward: one pass in their order finds them all."""
        for source, targets in self._jumps:
            if now & source:
                now |= targets
        return now


@dataclass(slots=True)
class _Class:
    """One character out of a list or a range, or one that is not."""

    first: str
    last: str
    """The range."""
    listed: frozenset[str]
    """The list; empty for a range."""
    negated: bool
    elements: int = 0

    def has(self, character: str) -> bool:
        inside = character in self.listed if self.listed else self.first <= character <= self.last
        return inside != self.negated


@dataclass(slots=True)
class _Machine:
    """A glob's elements by what they take: sets of their numbers, as integers of one bit each."""

    size: int = 0
    literals: dict[str, int] = field(default_factory=dict)
    one_in_path: int = 0
    any_number_in_path: int = 0
    any_number: int = 0
    classes: list[_Class] = field(default_factory=list)
    jumps: dict[int, int] = field(default_factory=dict)
    """Where one may go on from an element without taking a character."""


@dataclass(slots=True)
class _Braces:
    """Braces that are still open."""

    position: int
    element: int
    starts: int
    ends: list[int] = field(default_factory=list)


class _Parser:
    """Reads a glob once, from left to right."""

    def __init__(self, text: str, place: str) -> None:
        self._text = text
        self._place = place
        self._position = 0
        self._machine = _Machine()
        self._open: list[_Braces] = []

    def machine(self) -> _Machine:
        """The whole glob."""
        if len(self._text) > MAX_GLOB_CHARACTERS:
            what = (
                f"has {len(self._text):,} characters, {MAX_GLOB_CHARACTERS:,} are allowed: give several globs instead"
            )
            raise CortexError("batchapi.invalid_glob", f"{self._place}: the glob {self._text[:40]!r}... {what}")
        while self._position < len(self._text):
            self._element(self._next())
        if self._open:
            self._refuse("the brace that opens here is never closed", self._open[-1].position)
        return self._machine

    def _element(self, character: str) -> None:
        machine = self._machine
        match character:
            case "*" if self._peek() == "*":
                self._position += 1
                machine.any_number |= self._skippable()
            case "*":
                machine.any_number_in_path |= self._skippable()
            case "?":
                machine.one_in_path |= self._added()
            case "[":
                self._class()
            case "{":
                braces = _Braces(self._position - 1, machine.size, 0)
                self._added()
                self._open.append(braces)
                braces.starts = 1 << machine.size
            case "," if self._open:
                self._open[-1].ends.append(machine.size)
                self._added()
                self._open[-1].starts |= 1 << machine.size
            case "}" if self._open:
                self._close(self._open.pop())
            case "\\":
                self._literal(self._next("a backslash stands before a character; write two for a backslash"))
            case _:
                self._literal(character)

    def _close(self, braces: _Braces) -> None:
        machine = self._machine
        braces.ends.append(machine.size)
        self._added()
        machine.jumps[braces.element] = braces.starts
        machine.jumps |= dict.fromkeys(braces.ends, 1 << machine.size)

    def _literal(self, character: str) -> None:
        self._machine.literals[character] = self._machine.literals.get(character, 0) | self._added()

    def _class(self) -> None:
        start = self._position - 1
        unfinished = "the class that opens here is never closed"
        if negated := self._peek() == "!":
            self._position += 1
        if self._text[self._position + 1 : self._position + 2] == "-":
            first, _, last = self._next(), self._next(), self._next(unfinished, start)
            if last < first:
                self._refuse(f"the range {first}-{last} is empty", start)
            found = _Class(first, last, frozenset(), negated)
            if self._next(unfinished, start) != "]":
                self._refuse("a class is either one range or a list, such as [a-z] or [abc]", start)
        else:
            listed = set()
            while (character := self._next(unfinished, start)) != "]":
                listed.add(self._next(unfinished, start) if character == "\\" else character)
            if not listed:
                self._refuse("the class is empty; write [\\]] for a bracket", start)
            found = _Class("", "", frozenset(listed), negated)
        found.elements = self._added()
        self._machine.classes.append(found)

    def _added(self) -> int:
        """One element more, as a set."""
        self._machine.size += 1
        return 1 << (self._machine.size - 1)

    def _skippable(self) -> int:
        element = self._added()
        self._machine.jumps[self._machine.size - 1] = element << 1
        return element

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _next(self, or_else: str = "it ends too early", place: int | None = None) -> str:
        """The next character; at the glob's end, the error."""
        if self._position == len(self._text):
            self._refuse(or_else, self._position - 1 if place is None else place)
        self._position += 1
        return self._text[self._position - 1]

    def _refuse(self, what: str, position: int) -> NoReturn:
        raise CortexError(
            "batchapi.invalid_glob",
            f"{self._place}: the glob {self._text!r} is wrong at character {position + 1}: {what}",
        )
