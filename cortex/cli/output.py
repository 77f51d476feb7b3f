"""Standard output: JSON as it came, or for people, who sit at a terminal or read a file."""

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000
"""Columns of a file: nothing in it is cut or wrapped."""


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
    sys.stdout.buffer.write(text.strip() + b"\n")
    sys.stdout.buffer.flush()
