"""Kept output read back, in real files, as it grows and is moved away."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from services.scheduler.adapters.log_files import LogFiles
from services.scheduler.usecases.ports.logs import LogEntry

JOB = "00000000000000aa"


def line(second: int, message: str) -> str:
    return json.dumps({"time": f"2026-01-01T00:00:{second:02}.000+00:00", "worker": 0, "message": message}) + "\n"


def write(root: Path, slot: int, container: str, *lines: str) -> Path:
    path = root / "hello" / JOB / str(slot) / f"{container}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(lines)
    return path


async def all_of(root: Path) -> list[LogEntry]:
    found = []
    async for entries in LogFiles(root).tail("hello", JOB, False, asyncio.Event()):
        assert entries
        found += entries
    return found


class Following:
    """A tail that is read one line at a time."""

    def __init__(self, root: Path) -> None:
        self.finished = asyncio.Event()
        self._lists: AsyncIterator[list[LogEntry]] = LogFiles(root).tail("hello", JOB, True, self.finished)
        self._waiting: list[LogEntry] = []

    async def next(self) -> str:
        async with asyncio.timeout(10):
            while not self._waiting:
                self._waiting = await anext(self._lists)
        return self._waiting.pop(0).message


async def test_the_output_of_all_containers_is_merged_by_time(tmp_path: Path) -> None:
    write(tmp_path, 0, "api", line(1, "a"), line(4, "d"))
    write(tmp_path, 1, "api", line(2, "b"))
    write(tmp_path, 1, "side", line(3, "c"))
    found = await all_of(tmp_path)
    assert [(entry.message, entry.worker, entry.container) for entry in found] == [
        ("a", 0, "api"),
        ("b", 1, "api"),
        ("c", 1, "side"),
        ("d", 0, "api"),
    ]
    assert found[0].time_ns == 1_767_225_601_000_000_000


async def test_a_job_without_output_has_no_lines(tmp_path: Path) -> None:
    assert await all_of(tmp_path) == []


async def test_a_full_files_predecessor_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path, 0, "api", line(1, "old"))
    path.rename(path.with_name("api.jsonl.1"))
    write(tmp_path, 0, "api", line(2, "new"))
    assert [entry.message for entry in await all_of(tmp_path)] == ["old", "new"]


async def test_torn_lines_are_left_out_and_a_crashs_last_words_are_not(tmp_path: Path) -> None:
    write(tmp_path, 0, "api", line(1, "whole"), '{"time": "2026-', "\n", line(2, "next"), '{"time": "half')
    write(tmp_path, 0, "dequeuer", line(3, "fine"), "Traceback (most recent call last):\n")
    assert [entry.message for entry in await all_of(tmp_path)] == [
        "whole",
        "next",
        "fine",
        "Traceback (most recent call last):",
    ]


async def test_many_lines_come_in_several_lists(tmp_path: Path) -> None:
    write(tmp_path, 0, "api", *(line(1, str(number)) for number in range(1200)))
    assert [entry.message for entry in await all_of(tmp_path)] == [str(number) for number in range(1200)]


async def test_following_sees_new_lines_new_files_and_files_moved_away(tmp_path: Path) -> None:
    following = Following(tmp_path)
    path = write(tmp_path, 0, "api", line(1, "first"))
    assert await following.next() == "first"
    with path.open("a") as file:
        half = line(2, "in two parts")
        file.write(half[:20])
        file.flush()
        write(tmp_path, 1, "api", line(2, "another worker"))
        assert await following.next() == "another worker"
        file.write(half[20:])
    assert await following.next() == "in two parts"
    write(tmp_path, 0, "api", line(3, "last of the old"))
    path.rename(path.with_name("api.jsonl.1"))
    write(tmp_path, 0, "api", line(4, "first of the new"))
    assert await following.next() == "last of the old"
    assert await following.next() == "first of the new"
    write(tmp_path, 0, "api", line(5, "the end"))
    following.finished.set()
    assert await following.next() == "the end"
    assert await anext(following._lists, None) is None
