"""Reading the kept output of a job's containers: `logs/API/JOB/SLOT/CONTAINER.jsonl`, all files as one stream.

Each pass reads what is new in every file and merges it by time, so that lines are in order within a container and
roughly so between them. Following means a pass whenever something may be there: files are looked at five times a
second, which costs one `stat` a file and works on every file system, and once more when the job is over. A file that
was moved away because it was full is read to its end first.
"""

import asyncio
import heapq
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from services.common.events import wait_within
from services.scheduler.usecases.ports.logs import LogEntry

_FOLLOW_SECONDS = 0.2
_ENTRIES_AT_ONCE = 500
_OLD_SUFFIX = ".1"
OWN_CONTAINER = "dequeuer"
"""How the dequeuer's own log is called among the containers'."""


class LogFiles:
    """All kept output below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def tail(
        self, api_name: str, job_id: str, follow: bool, finished: asyncio.Event
    ) -> AsyncIterator[list[LogEntry]]:
        """A job's lines, in lists that are never empty. With `follow`, goes on until `finished`.

        Lines that are no JSON (a crash of the dequeuer itself) come as they are; a line that is only half there is
        left out until it is whole.
        """
        job = _Job(self._root / api_name / job_id)
        try:
            while True:
                last = not follow or finished.is_set()
                entries = job.new_entries()
                while batch := await asyncio.to_thread(list, islice(entries, _ENTRIES_AT_ONCE)):
                    yield batch
                if last:
                    return
                await wait_within(finished, _FOLLOW_SECONDS)
        finally:
            job.close()


class _Job:
    """The files of one job, and how far each is read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Path, _File] = {}

    def new_entries(self) -> Iterator[LogEntry]:
        """What has come since the last pass."""
        for path in sorted(self._directory.glob("*/*.jsonl")):
            if path not in self._files and path.parent.name.isdigit():
                self._files[path] = _File(path)
        yield from heapq.merge(*(file.new_entries() for file in self._files.values()), key=lambda entry: entry.time_ns)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class _File:
    """One container's output: the file that is written, and the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = int(path.parent.name)
        self._container = path.stem
        self._open: BinaryIO | None = None
        self._last_ns = 0
        self._started = False

    def new_entries(self) -> Iterator[LogEntry]:
        if not self._started:
            self._started = True
            self._open = _opened(self._path.with_name(self._path.name + _OLD_SUFFIX))
        while True:
            if self._open is not None:
                yield from self._rest(self._open)
            newer = _opened(self._path)
            if newer is None:
                return
            if self._open is not None and _same(self._open, newer):
                newer.close()
                return
            if self._open is not None:
                yield from self._rest(self._open)  # written between the first look and the move
                self._open.close()
            self._open = newer

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def _rest(self, file: BinaryIO) -> Iterator[LogEntry]:
        while True:
            start = file.tell()
            line = file.readline()
            if not line.endswith(b"\n"):
                file.seek(start)
                return
            if (entry := self._entry(line)) is not None:
                yield entry

    def _entry(self, line: bytes) -> LogEntry | None:
        text = line.decode(errors="replace").rstrip("\n")
        if not text:
            return None
        try:
            told = json.loads(text)
            self._last_ns = _nanoseconds(told["time"])
            message = str(told["message"])
        except (ValueError, KeyError, TypeError):
            if self._container != OWN_CONTAINER:
                return None  # torn when the disk was full or the machine went down
            message = text
        return LogEntry(self._last_ns or time.time_ns(), self._worker, self._container, message)


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    a, b = os.fstat(one.fileno()), os.fstat(other.fileno())
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _nanoseconds(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.astimezone(UTC).timestamp() * 1000) * 1_000_000
