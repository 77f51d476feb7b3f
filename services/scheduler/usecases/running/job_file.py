"""What a job's containers are told of it: /cortex/spec/job.json."""

import logging
from collections.abc import Callable

from services.common.errors import CortexError
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.usecases.patience import Patience
from services.scheduler.usecases.running.surroundings import Surroundings

log = logging.getLogger(__name__)


class JobFile:
    """One job's file. It says what `job` gives when it is written."""

    def __init__(
        self, around: Surroundings, job: Callable[[], JobRecord], patience: Patience, spawn: Callable[..., None]
    ) -> None:
        self._around = around
        self._job = job
        self._patience = patience
        self._spawn = spawn

    async def write(self) -> None:
        """Write it, as soon as the disk takes it."""
        await self._patience(self._write)

    async def write_soon(self) -> None:
        """Write it now, or else in the background: the job's end must not wait for the disk."""
        try:
            await self._write()
        except CortexError as error:
            log.error("job %s: its specification will be written later: %s", self._job().spec.job_id, error.message)
            self._spawn(self.write(), "describe", until_over=True)

    async def _write(self) -> None:
        job = self._job()
        await self._around.driver.write_job_spec(job, self._around.job_document(job))
