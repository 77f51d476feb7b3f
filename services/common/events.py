"""Waiting for an event, but not for ever.

Not by `asyncio.wait_for`, which nothing here uses: before Python 3.12 it forgets that it was cancelled where what it
waits for comes in the same moment, and then a task goes on that everybody takes for ended.
"""

import asyncio


async def wait_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, `seconds` at most (None: as long as it takes); it is the caller's to look which."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
