"""Waiting for events."""

import asyncio

from services.common.events import wait_within


async def test_a_wait_ends_with_its_event_or_when_its_time_is_over() -> None:
    event = asyncio.Event()
    await wait_within(event, 0.0)
    waiting = asyncio.create_task(wait_within(event, None))
    await asyncio.sleep(0)
    event.set()
    await waiting


async def test_a_wait_that_is_cancelled_in_the_moment_of_its_event_is_cancelled() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_within(event, 60.0))
    await asyncio.sleep(0)
    event.set()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
