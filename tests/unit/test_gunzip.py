"""Unpacking gzip as it comes."""

import gzip
import random

import pytest

from services.common.errors import CortexError
from services.scheduler.usecases.input.gunzip import STEP_BYTES, Gunzip

DATA = random.Random(1).randbytes(3_000) * 300  # a reproducible one, of more than two steps


def unpacked(packed: bytes, size: int) -> bytes:
    gunzip = Gunzip("file:///a.gz")
    steps = [step for start in range(0, len(packed), size) for step in gunzip.feed(packed[start : start + size])]
    gunzip.finish()
    assert all(0 < len(step) <= STEP_BYTES for step in steps)
    return b"".join(steps)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_however_it_is_cut_the_same_comes_out(size: int) -> None:
    data = DATA if size > 1 else DATA[:5_000]
    packed = gzip.compress(data[:3000]) + gzip.compress(b"") + gzip.compress(data[3000:]) + b"\0" * 10
    assert unpacked(packed, size) == data


def test_what_grows_without_end_comes_in_steps() -> None:
    assert unpacked(gzip.compress(bytes(50 * STEP_BYTES)), 1 << 20) == bytes(50 * STEP_BYTES)


@pytest.mark.parametrize(
    "packed",
    [
        b"plain text",
        gzip.compress(DATA)[:-1],
        gzip.compress(DATA)[:100],
        gzip.compress(DATA)[:-5] + b"12345",
        gzip.compress(DATA) + b"rest",
        b"\x1f",
    ],
    ids=["plain", "cut at its end", "cut", "checksum", "rest", "one byte"],
)
def test_what_is_no_gzip_is_named(packed: bytes) -> None:
    with pytest.raises(CortexError, match=r"file:///a\.gz is named \.gz but cannot be unpacked") as error:
        unpacked(packed, 64)
    assert error.value.kind == "files.malformed_gzip"
