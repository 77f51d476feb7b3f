"""Bytes into lines, and lines into files that are full, torn or gone."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dequeuer.pod.lines import MAX_LINE_BYTES, LineSplitter
from services.dequeuer.pod.output import ContainerOutput

LABELS = {"apiName": "hello", "apiKind": "BatchAPI", "apiID": "v1", "jobID": "j1"}


def split(chunks: list[bytes]) -> list[bytes]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\r", b"\n", b"\r\n", b"x\r"]), max_size=20))
def test_lines_do_not_depend_on_how_the_stream_was_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    by_the_letter = re.split(rb"(\r\n|\n|\r)", whole)
    texts, ends = by_the_letter[::2], [*by_the_letter[1::2], b""]
    expected = [text for text, end in zip(texts, ends, strict=True) if text or end in (b"\n", b"\r\n")]
    assert without_empty(split([chunk for chunk in chunks if chunk])) == without_empty(expected)


def without_empty(lines: list[bytes]) -> list[bytes]:
    """An empty line that ends with CR LF is lost where a chunk ends between the two."""
    return [line for line in lines if line]


@given(st.text(alphabet="aé€😀", min_size=1), st.integers(1, 5))
def test_long_lines_are_cut_between_characters(text: str, chunks: int) -> None:
    line = (text * (3 * MAX_LINE_BYTES // len(text.encode()) + 1)).encode()
    size = len(line) // chunks + 1
    parts = split([line[start : start + size] for start in range(0, len(line), size)])
    assert b"".join(parts) == line
    assert all(len(part) <= MAX_LINE_BYTES and part.decode() for part in parts)


def run(output: ContainerOutput, data: bytes) -> None:
    fd = output.open_pipe()
    with os.fdopen(fd, "wb") as pipe:
        pipe.write(data)
    output.drain(10)


def messages(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_a_full_file_is_moved_away_and_two_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    output = ContainerOutput(path, 0, "api", LABELS, max_file_bytes=10_000)
    for number in range(200):
        run(output, b"line %d\n" % number)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["api.jsonl", "api.jsonl.1"]
    kept = messages(tmp_path / "api.jsonl.1") + messages(path)
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]
    assert all(each.stat().st_size <= 10_000 for each in tmp_path.iterdir())


def test_a_torn_last_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    path.write_text('{"time": "2026')
    run(ContainerOutput(path, 0, "api", LABELS), b"whole\n")
    assert json.loads(path.read_text().splitlines()[1])["message"] == "whole"


def test_a_full_disk_drops_lines_counts_them_and_says_so_later(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    path.symlink_to("/dev/full")
    output = ContainerOutput(path, 0, "api", LABELS)
    run(output, b"one\ntwo\n")
    run(output, b"three\n")
    assert output.tail() == ["three"]
    path.unlink()
    output.close()
    again = ContainerOutput(path, 0, "api", LABELS)
    run(again, b"fine\n")
    assert messages(path) == ["fine"]


def test_a_disk_that_fills_in_the_middle_of_a_line_and_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "api.jsonl"
    output = ContainerOutput(path, 0, "api", LABELS)
    real_write, room = os.write, [300]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("services.dequeuer.pod.output.os.write", write)
    run(output, b"one\ntwo\nthree\n")
    run(output, b"four\n")
    room[0] = 1_000_000
    run(output, b"five\n")
    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["message"] == "one"
    whole = [json.loads(line)["message"] for line in lines if line.endswith("}}")]
    assert whole[-2:] == ["cortex: 3 lines are missing here: they could not be written to the disk", "five"]
