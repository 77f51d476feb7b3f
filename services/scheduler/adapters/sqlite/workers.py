"""Worker processes."""

from services.scheduler.adapters.sqlite.tables import Tables
from services.scheduler.domain.model.worker import WorkerRecord

_COLUMNS = "worker_id, job_id, slot, pid, started, detail"


class WorkerTables(Tables):
    """See `WorkerLedger`."""

    async def put_worker(self, worker: WorkerRecord) -> None:
        """See the port."""
        await self._execute(
            f"REPLACE INTO workers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  # constants
            (worker.worker_id, worker.job_id, worker.slot, worker.pid, worker.started, worker.detail),
        )

    async def remove_worker(self, worker_id: str) -> None:
        """See the port."""
        await self._execute("DELETE FROM workers WHERE worker_id = ?", (worker_id,))

    async def workers(self, job_id: str | None = None) -> list[WorkerRecord]:
        """See the port."""
        found = await self._select(
            f"SELECT {_COLUMNS} FROM workers WHERE :job_id IS NULL OR job_id = :job_id"  # noqa: S608  # constants
            " ORDER BY job_id, slot, worker_id",
            {"job_id": job_id},
        )
        return [WorkerRecord(*row) for row in found]
