"""Bytes into lines, whatever a program writes.

A line ends with LF, CR LF or CR; progress bars write CR, so that each of their states is a line. What stands before a
CR and is empty is no line. Lines over 64 KiB are cut, between characters where they are UTF-8.
"""

MAX_LINE_BYTES = 64 * 1024
"""Longer lines are cut into several."""


class LineSplitter:
    """Splits a stream that comes in chunks."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their ends."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        pieces = (self._rest + chunk).splitlines(keepends=True)
        self._rest = pieces.pop() if pieces and not pieces[-1].endswith((b"\n", b"\r")) else b""
        self._after_cr = chunk.endswith(b"\r")
        lines: list[bytes] = []
        for piece in pieces:
            line = piece.rstrip(b"\r\n")
            if line or piece.endswith(b"\n"):
                lines += _cut(line)
        *parts, self._rest = _cut(self._rest)
        return lines + parts

    def finish(self) -> list[bytes]:
        """What is left when the stream has ended: a line without an end, or nothing."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _cut(line: bytes) -> list[bytes]:
    parts = []
    while len(line) > MAX_LINE_BYTES:
        at = MAX_LINE_BYTES
        while at > MAX_LINE_BYTES - 4 and line[at] & 0xC0 == 0x80:  # inside of a character
            at -= 1
        parts.append(line[:at])
        line = line[at:]
    return [*parts, line]
