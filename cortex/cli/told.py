"""What a server told, made fit for a terminal.

Names, reasons and log lines come from containers and from other people's files. A terminal obeys what is in them: an
escape sequence moves its cursor, retitles its window, answers for the user, and a change of the writing direction
shows one thing for another. So whatever is shown to people passes through here and shows such characters as `\\x1b`;
only colours are left out silently, because honest programs write them. `--output json` stays what the server wrote.
"""

import json
import re
from typing import Any

from cortex.exceptions import CortexException

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but tab and line feed, changes of the writing direction, and what is no character at all."""


def safe(text: str) -> str:
    """The text without colours, and with a visible escape for every character that a terminal would obey."""
    return _UNSAFE.sub(_visible, _COLOURS.sub("", text))


def told(answer: bytes) -> Any:
    """A JSON answer with safe texts. Names of members stay as they are: they are looked up and never shown.

    Raises `CortexException` for what is no JSON.
    """
    try:
        root = [json.loads(answer)]
    except ValueError as error:  # another program answers there
        start = safe(answer[:80].decode(errors="replace"))
        message = f"the answer is not JSON, so it is not cortex-batch that answers there: {start!r}"
        raise CortexException("client.unexpected_answer", message) from error
    pending: list[Any] = [root]  # no recursion: `config` may be nested deeper than Python's stack
    while pending:
        values = pending.pop()
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if isinstance(value, str):
                values[key] = safe(value)
            elif isinstance(value, dict | list):
                pending.append(value)
    return root[0]


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
