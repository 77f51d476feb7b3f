"""Waiting for an event, but not for ever."""

import asyncio


async def wait_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, `seconds` at most (None: as long as it takes); it is the caller's to look which."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
