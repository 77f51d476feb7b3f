"""Ranges come in order, whatever answers first; memory and requests have limits; nothing is left behind."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import pairwise

import pytest

from services.common.errors import CortexError
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.input import read_ahead as module
from services.scheduler.usecases.input.read_ahead import Range, Step, read_ahead

SIZES = [1, 5_000, 40, 100, 70_001, 3, 100, 100, 9_999]


class Store:
    """Objects in memory, whose chunks come when the test wants it."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)  # a reproducible one
        self.contents = {str(number): self.random.randbytes(size) for number, size in enumerate(SIZES)}
        self.open = asyncio.Event()
        self.open.set()
        self.held: tuple[str, int] | None = None
        """Nothing comes of the range that starts here until it is `open`."""
        self.broken = ""
        self.given = self.under_way = self.most_under_way = 0

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        raise NotImplementedError  # nobody asks

    async def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            while start < end:
                if (stored.uri, start) == self.held:
                    await self.open.wait()
                for _ in range(self.random.randrange(4)):
                    await asyncio.sleep(0)
                if stored.uri == self.broken:
                    raise CortexError("objects.changed", "broken")
                chunk = self.contents[stored.uri][start : min(start + self.random.randrange(1, 400), end)]
                self.given += len(chunk)
                yield chunk
                start += len(chunk)
        finally:
            self.under_way -= 1

    async def ranges(self, length: int = 1_000) -> AsyncIterator[Range]:
        for uri, content in self.contents.items():
            for start in range(0, len(content), length):
                stored = StoredObject(uri, len(content), "")
                yield Range(0, stored, start, min(start + length, len(content)))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"REQUESTED_BYTES": 5_000, "REQUESTS": 7, "WAITING_BYTES": 2_000, "STEP_BYTES": 300}.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("seed", range(10))
async def test_bytes_come_in_order_in_steps_that_do_not_depend_on_chunks(seed: int) -> None:
    store = Store(seed)
    steps = [step async for step in read_ahead(store, store.ranges())]
    found: dict[str, bytes] = {}
    for step in steps:
        uri = step.place.stored.uri
        found[uri] = found.get(uri, b"") + b"".join(step.chunks)
        assert step.last == (len(found[uri]) == step.place.stored.size)
    assert found == store.contents
    assert list(found) == list(store.contents)
    for step, following in pairwise(steps):
        assert sum(map(len, step.chunks)) == 300 or step.place != following.place
    assert 5 <= store.most_under_way <= 7
    assert store.under_way == 0


async def standing_still() -> None:
    for _ in range(10_000):
        await asyncio.sleep(0)


async def test_what_waits_for_its_turn_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTED_BYTES", 50_000)
    store = Store()
    store.held = ("1", 0)
    store.open.clear()
    found: list[Step] = []

    async def take() -> None:
        found.extend([step async for step in read_ahead(store, store.ranges())])

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        await standing_still()
        given = store.given
        store.open.set()
    assert 2_000 <= given <= 2_000 + 7 * 400, "each request holds one more chunk"
    assert sum(len(chunk) for step in found for chunk in step.chunks) == sum(SIZES)


async def test_nobody_reads_on_when_nothing_is_taken() -> None:
    store = Store()
    async with aclosing(read_ahead(store, store.ranges())) as steps:
        await anext(steps)
        await standing_still()
        before = store.given
        await standing_still()
        assert store.given == before <= 1 + 2_000 + 300 + 7 * 400
        assert store.under_way > 0
    assert store.under_way == 0, "all are closed"


async def test_a_mistake_is_told_when_it_is_its_turn() -> None:
    store = Store()
    store.broken = "3"
    good = 0

    async def take() -> None:
        nonlocal good
        async for step in read_ahead(store, store.ranges()):
            good += sum(map(len, step.chunks))

    with pytest.raises(CortexError, match="broken"):
        await take()
    assert good == sum(SIZES[:3])
    assert store.under_way == 0


async def test_a_range_that_ends_early_is_a_change() -> None:
    store = Store()
    ranges = [place async for place in store.ranges()]
    store.contents["1"] = store.contents["1"][:4_500]

    async def again() -> AsyncIterator[Range]:
        for place in ranges:
            yield place

    async def give_less(stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        if chunk := store.contents[stored.uri][start:end]:
            yield chunk

    store.read = give_less  # type: ignore[method-assign]  # for this test
    with pytest.raises(CortexError) as error:
        [step async for step in read_ahead(store, again())]
    assert error.value.kind == "objects.changed"
