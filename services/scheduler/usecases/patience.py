"""Repeats what cannot be done just now: a job waits for its disk, or for a store, rather than end for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.common.errors import CortexError

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

T = TypeVar("T")


class Patience:
    """One part of a job and its dealings with the ledger or a store, one after the other.

    `on_trouble`: it began, or is over. Errors that are `hopeless` are raised; the others pass.
    """

    def __init__(
        self,
        job_id: str,
        what: str,
        on_trouble: Callable[[], None],
        hopeless: Callable[[CortexError], bool] = lambda _: False,
        *,
        pause_seconds: float | None = None,
    ) -> None:
        self._pause_seconds = RETRY_SECONDS if pause_seconds is None else pause_seconds
        self._job_id = job_id
        self._what = what
        self._on_trouble = on_trouble
        self._hopeless = hopeless
        self.trouble = ""
        """Why the job is held up just now, for people; empty when all is well."""

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat this until it succeeds, or this task is cancelled."""
        while True:
            try:
                result = await work()
            except CortexError as error:
                if self._hopeless(error):
                    self._tell("")
                    raise
                if not self.trouble:
                    log.error("job %s: %s, trying again: %s", self._job_id, self._what, error.message)
                self._tell(error.message)
                await asyncio.sleep(self._pause_seconds)
            else:
                self._tell("")
                return result

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._on_trouble()
