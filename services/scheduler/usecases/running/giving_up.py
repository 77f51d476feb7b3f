"""What becomes of batches that are given up, where that takes more than to record them as failed.

    given up, durably --> halved (`split_failed`, more than one item) ------------------> recorded as split
                     |
                     +--> sent to the dead letter queue, again and again until it is in -> recorded as failed

It stands between the verdict and the recorder. That a batch is given up is on disk before it comes here, so that after
a restart it comes here again and to no worker. Halving is one transaction. Between sending and recording a crash makes
the batch be sent twice, which a FIFO queue hides; to record it first could lose it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial

from services.common.errors import CortexError
from services.scheduler.domain.attempts import backoff
from services.scheduler.domain.model.batch import BatchState, Halves, History, Outcome
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.domain.partition import item_lengths, payload
from services.scheduler.usecases.input.input_reader import InputReader, UnreadableError, is_lost
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.ports.dead_letters import MESSAGE_REFUSED, DeadLetter
from services.scheduler.usecases.running.surroundings import Surroundings

log = logging.getLogger(__name__)

SENDING_AT_ONCE = 8
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""Before a batch that the queue did not take is sent again."""


def is_asked_for(spec: JobSpec) -> bool:
    """Whether a job has anything to do here."""
    return spec.options.split_failed or spec.dead_letter_queue is not None


class GivingUp:
    """The batches of one job that are given up and not final yet."""

    def __init__(
        self,
        around: Surroundings,
        spec: JobSpec,
        *,
        on_failed: Callable[[Outcome], None],
        on_split: Callable[[Outcome, Halves], None],
        on_trouble: Callable[[], None],
    ) -> None:
        self._ledger = around.ledger
        self._reader = InputReader(around.ledger, around.objects, spec.job_id, read_ahead=False)
        self._queues = around.queues
        self._clock = around.clock
        self._spec = spec
        self._on_failed = on_failed
        self._on_split = on_split
        self._on_trouble = on_trouble
        self._patience = Patience(spec.job_id, "batches that are given up cannot be read", on_trouble, is_lost)
        self._todo: asyncio.Queue[tuple[int, History]] = asyncio.Queue()
        self._free = asyncio.Semaphore(SENDING_AT_ONCE)
        self._troubles: dict[int, str] = {}  # by batch

    @property
    def trouble(self) -> str:
        """What holds batches up here, for people; empty when all is well."""
        return self._patience.trouble or next(iter(self._troubles.values()), "")

    def add(self, index: int, history: History) -> None:
        """A batch is given up, and durably so."""
        self._todo.put_nowait((index, history))

    async def run(self) -> None:
        """Bring batches to their ends until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                index, history = await self._todo.get()
                items = await self._halve(index, history)
                if items is not None:
                    await self._free.acquire()
                    tasks.create_task(self._fail(index, history, items), name=f"give up batch {index}")

    async def _halve(self, index: int, history: History) -> bytes | None:
        """Halve a batch if that is asked for and can be done; else its items. None: the batch has its end."""
        try:
            start, items = await self._patience(partial(self._read, index))
        except UnreadableError as error:
            outcome = self._outcome(BatchState.FAILED, index, history)
            outcome.error += f"; its items are lost: {error.message}"
            self._on_failed(outcome)
            return None
        lengths = item_lengths(items) if self._spec.options.split_failed else ()
        if len(lengths) <= 1:
            return items
        self._on_split(self._outcome(BatchState.SPLIT, index, history), _halves(index, start, lengths))
        return None

    async def _read(self, index: int) -> tuple[int, bytes]:
        [segment] = await self._ledger.segments(self._spec.job_id, index, 1)
        start, end = segment.range_of(index)
        return start, await self._reader.read(start, end)

    async def _fail(self, index: int, history: History, items: bytes) -> None:
        try:
            refusal = ""
            if self._spec.dead_letter_queue is not None:
                refusal = await self._send(self._spec.dead_letter_queue.arn, index, history, items)
            outcome = self._outcome(BatchState.FAILED, index, history)
            if refusal:
                outcome.error += f"; it is kept here, for it could not be sent to the dead letter queue: {refusal}"
            self._on_failed(outcome)
        finally:
            self._free.release()

    def _outcome(self, state: BatchState, index: int, history: History) -> Outcome:
        return Outcome(index, state, history.attempts, history.http_status, history.error, self._clock.now_ns())

    async def _send(self, arn: str, index: int, history: History, items: bytes) -> str:
        """Send a batch until the queue takes it; why it never will, for people, or `""`."""
        spec, body = self._spec, payload(items).decode()
        letter = DeadLetter(
            spec.job_id, spec.api_name, index, history.attempts, history.http_status, history.error, body
        )
        failures = 0
        try:
            while True:
                try:
                    await self._queues.send(arn, letter)
                except CortexError as error:
                    if error.kind == MESSAGE_REFUSED:
                        return error.message
                    failures += 1
                    self._tell(index, f"batch {index} cannot be sent to the dead letter queue: {error.message}")
                    chance = random.random()  # noqa: S311  # no secret
                    await asyncio.sleep(backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, failures, chance))
                else:
                    return ""
        finally:
            self._tell(index, "")

    def _tell(self, index: int, trouble: str) -> None:
        before = self.trouble
        if trouble:
            if index not in self._troubles:
                log.error("job %s: %s; trying again", self._spec.job_id, trouble)
            self._troubles[index] = trouble
        else:
            self._troubles.pop(index, None)
        if self.trouble != before:
            self._on_trouble()


def _halves(index: int, start: int, lengths: Sequence[int]) -> Halves:
    middle = (len(lengths) + 1) // 2
    return Halves(index, start, (sum(lengths[:middle]), sum(lengths[middle:])))
