"""Standard output: JSON as it came, or for people, who sit at a terminal or read a file."""

import re
import sys
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000
"""Columns of a file: nothing in it is cut or wrapped."""

_LATE_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


@cache
def console() -> "Console":
    """Standard output. In a file or a pipe: plain text as wide as it needs to be."""
    from rich.console import Console

    class PlainConsole(Console):
        """Tables are padded to their width; a file needs no spaces at the ends of its lines."""

        def print(self, *objects: Any, **options: Any) -> None:
            with self.capture() as captured:
                super().print(*objects, **options)
            self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))
            self.file.flush()

    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else PlainConsole(highlight=False, markup=False, width=WIDE, no_color=True)


def json_document(text: bytes) -> None:
    """A JSON document as the server wrote it, on a line of its own."""
    json_lines([text], at_once=True)


def json_lines(documents: Iterable[bytes], *, at_once: bool) -> None:
    """JSON documents as the server wrote them, one a line; `at_once` each is on its way before the next is asked for.

    JSON escapes all controls but DEL and C1 (U+007F to U+009F): for a terminal, which obeys these, they are escaped.
    """
    terminal = sys.stdout.isatty()
    for document in documents:
        text = _LATE_CONTROLS.sub(lambda match: b"\\u00%02x" % match[0][-1], document) if terminal else document
        sys.stdout.buffer.write(text.strip() + b"\n")
        if at_once:
            sys.stdout.buffer.flush()
    sys.stdout.buffer.flush()
