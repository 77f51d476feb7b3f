"""What containers write, kept as JSON lines.

A container's standard output and standard error are one pipe. A thread of ours reads it and appends to
`CONTAINER.jsonl`, so that neither a slow disk nor a talkative container is in the event loop's way. The container is
never ended or held up for its output: where the disk is full, lines are dropped and counted, and the count is written
once there is room again. A file that reaches its bound becomes `CONTAINER.jsonl.1`, replacing the one before.
"""

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from services.dequeuer.pod.lines import LineSplitter

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A file's bound; there are at most two for a container."""

_READ_BYTES = 64 * 1024
_TAIL_LINES = 8


class ContainerOutput:
    """One container's kept output, over all of its starts. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        worker: int,
        container: str,
        labels: Mapping[str, str],
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._middle = f',"worker":{worker},"container":{_json(container)},"message":'.encode()
        self._end = b',"cortex.labels":' + msgspec.json.encode(dict(labels)) + b"}\n"
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._size = 0
        self._torn = False
        self._dropped = 0
        self._closed = False
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pumps: list[threading.Thread] = []

    def open_pipe(self) -> int:
        """The writing end for a start of the container; the caller closes it once the process has it."""
        reading, writing = os.pipe()
        self._tail.clear()
        pump = threading.Thread(target=self._pump, args=(reading,), daemon=True, name=f"output of {self._path.stem}")
        self._pumps = [*(old for old in self._pumps if old.is_alive()), pump]
        pump.start()
        return writing

    def note(self, message: str) -> None:
        """A line from us among the container's."""
        self._append([message])

    def tail(self) -> list[str]:
        """The last lines since the last start, oldest first."""
        return list(self._tail)

    def drain(self, timeout: float) -> None:
        """Wait until everything written so far is kept, at most `timeout` seconds. Blocks: call it in a thread.

        It takes longer only where a process that left the container's tree still holds the pipe.
        """
        for pump in self._pumps:
            pump.join(timeout)

    def close(self) -> None:
        """Let go of the file. What is written later is dropped."""
        with self._lock:
            self._closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _pump(self, fd: int) -> None:
        splitter = LineSplitter()
        with open(fd, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_READ_BYTES):
                self._keep(splitter.feed(chunk))
        self._keep(splitter.finish())

    def _keep(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        texts = [line.decode(errors="replace") for line in lines]
        self._tail.extend(texts[-_TAIL_LINES:])
        self._append(texts)

    def _append(self, messages: Sequence[str]) -> None:
        with self._lock:
            if self._closed:
                return
            if self._dropped:
                lost = f"cortex: {self._dropped} lines are missing here: they could not be written to the disk"
                messages = [lost, *messages]
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            start = b'{"time":"' + now.encode() + b'"' + self._middle
            data = b"".join(start + msgspec.json.encode(message) + self._end for message in messages)
            told = 1 if self._dropped else 0
            missing = self._write(data)
            if missing == 0:
                self._dropped = 0
            else:
                self._dropped += min(missing, len(messages) - told)

    def _write(self, data: bytes) -> int:
        """Append whole lines; how many of them did not get there."""
        total = data.count(b"\n")
        try:
            fd = self._open(len(data))
            written = os.write(fd, b"\n" + data if self._torn else data) - self._torn
        except OSError:
            return total
        self._size += max(0, written)
        if written < len(data):  # the disk filled up in the middle of a line: the next write begins a new one
            self._torn = written > 0 or self._torn
            return total - data.count(b"\n", 0, max(0, written))
        self._torn = False
        return 0

    def _open(self, more: int) -> int:
        if self._fd is not None and self._size + more > self._max_file_bytes and self._size:
            os.close(self._fd)
            self._fd = None
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._size = os.fstat(self._fd).st_size
            self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        return self._fd


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
