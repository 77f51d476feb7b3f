"""What a part writes: kept in a file, and its warnings shown in readable form.

Parts write JSON lines, and in their last moments perhaps something else (a traceback). All of it goes to
`DATA/logs/system/PART.jsonl` as it is; the last line is remembered, for it says why a part ended.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""A log file that has grown so large becomes `PART.jsonl.1`, and the one before it goes."""

MAX_LINE_BYTES = 1024 * 1024
"""What is longer is cut into lines."""

SHOWN_LEVELS = ("warning", "error", "critical")
SHOWN_PER_SECOND = 10


class PartLog:
    """The log of one part, over all of its restarts."""

    def __init__(self, name: str, directory: Path, show: Callable[[str], None]) -> None:
        self.last_line = ""
        """The last line of any sort, in readable form."""
        self.path = directory / f"{name}.jsonl"
        self._name = name
        self._show = show
        self._window = 0.0
        self._shown = 0
        self._readers: list[_LineReader] = []

    def open_pipe(self) -> int:
        """A new write end for the part; whatever comes out at the other end is logged until its end of file."""
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        self._readers = [reader for reader in self._readers if reader.open] + [_LineReader(read_fd, self._take)]
        return write_fd

    def catch_up(self) -> None:
        """Read what has been written. A process that ended may have children that keep its pipe open."""
        for reader in self._readers:
            reader.read()

    def close(self) -> None:
        """Read no more."""
        for reader in self._readers:
            reader.close()

    def _take(self, lines: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk: the system goes on without this log
            if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_suffix(".jsonl.1"))
            with self.path.open("ab") as file:
                file.write(lines)
        for line in lines.splitlines():
            self._notice(line.decode(errors="replace").rstrip())

    def _notice(self, line: str) -> None:
        if not line:
            return
        level, message = readable(line)
        self.last_line = message
        if level in SHOWN_LEVELS:
            self._show_limited(f"{self._name}: {level}: {message}")

    def _show_limited(self, text: str) -> None:
        now = time.monotonic()
        if now - self._window > 1.0:
            self._window, self._shown = now, 0
        self._shown += 1
        if self._shown <= SHOWN_PER_SECOND:
            self._show(text)
        elif self._shown == SHOWN_PER_SECOND + 1:
            self._show(f"{self._name}: more of these are in {self.path}")


class _LineReader:
    """Reads a pipe and hands on whole lines, many at once."""

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        self.open = True
        self._fd = fd
        self._take = take
        self._rest = b""
        asyncio.get_running_loop().add_reader(fd, self.read)

    def read(self) -> None:
        """Read what is there."""
        while self.open:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return
            whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
            if data == b"":
                whole, newline, self._rest = whole + newline + self._rest, b"\n", b""
                self.close()
            if len(self._rest) > MAX_LINE_BYTES:
                whole, newline, self._rest = whole + newline + self._rest, b"\n", b""
            if whole:
                self._take(whole + newline)

    def close(self) -> None:
        """Read no more."""
        if self.open:
            self.open = False
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)


def readable(line: str) -> tuple[str, str]:
    """Level and message of a log line; other lines have no level."""
    try:
        record = json.loads(line)
        level, message = str(record["level"]), str(record["message"])
    except (ValueError, TypeError, KeyError):
        return "", line
    if exception := record.get("exception"):
        message += f" ({str(exception).strip().splitlines()[-1]})"
    return level, message
