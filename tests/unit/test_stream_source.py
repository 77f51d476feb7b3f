"""The items of a stream, between its client and its job."""

import asyncio

import pytest

from services.common.errors import CortexError
from services.scheduler.usecases.input.stream_source import MAX_WAITING_BYTES, StreamSource, items_of

HALF = b"1," * (MAX_WAITING_BYTES // 4)
LENGTHS = [2] * (MAX_WAITING_BYTES // 4)


async def test_a_client_waits_while_too_much_is_not_on_disk() -> None:
    source = StreamSource()
    await source.put(HALF, LENGTHS)
    await source.put(HALF, LENGTHS)
    third = asyncio.create_task(source.put(HALF, LENGTHS))
    parts = source.parts(b"")
    taken = [await anext(parts) for _ in range(3)]
    assert not third.done(), "taken is not stored"
    source.written(taken[0].position, complete=False)
    await third
    assert source.durable == len(LENGTHS)
    assert [items_of(part.position) for part in taken] == [len(LENGTHS) * number for number in (1, 2, 3)]
    await parts.aclose()


async def test_a_job_that_is_over_ends_all_waiting() -> None:
    source = StreamSource()
    await source.put(HALF + HALF, LENGTHS + LENGTHS)
    waiting = [asyncio.create_task(source.put(HALF, LENGTHS)), asyncio.create_task(source.progress(0))]
    await asyncio.sleep(0)  # they begin
    source.close(CortexError("job.over", "over"))
    for task in waiting:
        with pytest.raises(CortexError, match="over"):
            await task
    with pytest.raises(CortexError, match="over"):
        await source.put(b"1,", [2])


async def test_what_had_come_is_taken_before_a_stream_is_said_to_be_broken() -> None:
    source = StreamSource()
    await source.put(b"1,2,", [2, 2])
    source.break_off("gone")
    parts = source.parts(b"")
    assert (await anext(parts)).pieces == [b"1,2,"]
    with pytest.raises(CortexError, match="broke off after 2 items had arrived: gone"):
        await anext(parts)


async def test_a_stream_that_is_finished_cannot_break() -> None:
    source = StreamSource()
    await source.put(b"1,", [2])
    source.finish(b"digest")
    source.break_off("gone")
    [part] = [part async for part in source.parts(b"")]
    source.written(part.position, complete=True)
    await source.progress(0)
    source.close(CortexError("job.over", "over"))
    await source.progress(0)
