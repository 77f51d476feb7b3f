"""Waiting for facts about other processes, which send no events: look every few milliseconds, up to a deadline."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

SECONDS = 30.0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What the condition gives, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


async def wait_until(what: str, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """`wait_for` on an event loop that goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.01)
    return found
