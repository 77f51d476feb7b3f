"""Starting workers: one in each slot that is to have one.

    on disk under an id of ours -> the driver starts it, and may name it anew -> on disk under that name -> let in

A crash before the last step leaves a record of which nothing was found, and maybe a worker that calls under a name that
nobody knows: it is told to try again, and the driver hands it out when the slot is started again. A crash in the middle
of the last step leaves both records; `superseded` tells the empty one.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import End, Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.trace import JobTrace
from services.scheduler.usecases.ports.workers import WorkerExit
from services.scheduler.usecases.running.surroundings import Surroundings
from services.scheduler.usecases.running.worker import Worker

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""A worker that could not be started for lack of disk or of an answer is tried again so soon; it is not its failure."""

_NOT_ITS_FAULT = (Category.STORAGE_FULL, Category.UNAVAILABLE)


class StartFailed(Exception):  # noqa: N818  # an outcome, not an error of ours
    """A worker was not started."""

    def __init__(self, reason: str, *, blameless: bool, hopeless: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blameless = blameless
        self.hopeless = hopeless
        """Trying again cannot help."""
        self.pause_seconds = RETRY_SECONDS if blameless else 0.0
        """Until it is tried again, at least."""

    def as_exit(self, worker_id: str) -> WorkerExit:
        """The end of a worker that never was."""
        return WorkerExit(worker_id, f"a worker could not be started: {self.reason}", End.FAILED, self.blameless)


class _NotWanted(StartFailed):
    """It was to be left before the driver had it."""

    def __init__(self) -> None:
        super().__init__("it is not wanted any more", blameless=True, hopeless=False)


class WorkerStarts:
    """Those of one job. `started` and `failed` are told of each; `wanted` says whether a slot is to have a worker."""

    def __init__(
        self,
        around: Surroundings,
        api: ApiVersion,
        job: JobRecord,
        trace: JobTrace,
        members: dict[str, Worker],
        *,
        wanted: Callable[[int], bool],
        started: Callable[[Worker], Coroutine[Any, Any, None]],
        failed: Callable[[Worker, StartFailed], Coroutine[Any, Any, None]],
        settled: Callable[[], None],
        spawn: Callable[..., None],
    ) -> None:
        self._ledger = around.ledger
        self._driver = around.driver
        self._token = around.token
        self._api = api
        self._job = job
        self._trace = trace
        self._members = members
        self._wanted = wanted
        self._started = started
        self._failed = failed
        self._settled = settled
        self._spawn = spawn
        self.waiting: set[int] = set()
        """Slots whose workers will be started soon."""
        self.under_way = 0
        """Workers that are being started."""

    def soon(self, slot: int, delay: float = 0.0) -> None:
        """Start a worker in a slot, unless it is not wanted any more when it is its turn."""
        self.waiting.add(slot)
        self._spawn(self._start(slot, delay), f"start worker {slot}")

    async def _start(self, slot: int, delay: float) -> None:
        await asyncio.sleep(delay)
        self.waiting.discard(slot)
        if not self._wanted(slot):
            return
        record = WorkerRecord(secrets.token_hex(8), self._job.spec.job_id, slot, None, None)
        worker = self._members[record.worker_id] = Worker(record)
        self._trace.worker_starting(record)
        self.under_way += 1
        try:
            await self._make(worker)
        except StartFailed as failure:
            await self._failed(worker, failure)
        else:
            await self._started(worker)
        finally:
            self.under_way -= 1
            self._settled()

    async def _make(self, worker: Worker) -> None:
        """Start it, and have that on disk. Raises `StartFailed`."""
        try:
            provisional = worker.record
            await self._ledger.put_worker(provisional)
            worker.known = True
            worker.health = Health(Phase.CREATING)
            await self._ask_driver(worker)
            record = worker.record
            await self._ledger.put_worker(record)
            if record.worker_id != provisional.worker_id:
                await self._ledger.remove_worker(provisional.worker_id)
            worker.known = True
        except CortexError as error:
            log.error("job %s: a worker cannot be started: %s", self._job.spec.job_id, error.message)
            blameless, hopeless = error.category in _NOT_ITS_FAULT, error.category is Category.INVALID
            raise StartFailed(error.message, blameless=blameless, hopeless=hopeless) from error

    async def _ask_driver(self, worker: Worker) -> None:
        record = worker.record
        token = self._token(record.job_id, record.worker_id)
        if worker.dismissed or self._members.get(worker.id) is not worker:  # since it was noted
            raise _NotWanted
        try:
            async with asyncio.timeout(None) as worker.starting:  # ends when the worker is not wanted any more
                started = await self._driver.start(self._api, self._job, record, token)
                self._rename(worker, started)  # at once: the driver tells more of it under this name
        except TimeoutError:
            raise _NotWanted from None
        finally:
            worker.starting = None

    def _rename(self, worker: Worker, record: WorkerRecord) -> None:
        """From now on the driver's words, and a worker that calls, are about this id."""
        was = worker.id
        worker.record = record
        worker.vouched = False  # unless the driver says so again
        if worker.id != was and self._members.pop(was, None) is not None:
            worker.known = False  # not on disk under this id
            self._members[worker.id] = worker


def superseded(known: Iterable[WorkerRecord]) -> set[str]:
    """The ids of records that a crash left while their worker was given another one."""
    found = {record.slot for record in known if record.found}
    return {record.worker_id for record in known if not record.found and record.slot in found}
