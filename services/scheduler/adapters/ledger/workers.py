"""Worker processes."""

from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.worker import WorkerRecord

_COLUMNS = "worker_id, job_id, slot, pid, started, detail"
_PUT = (
    f"INSERT INTO workers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (worker_id) DO UPDATE SET"  # noqa: S608  # constants
    " job_id = excluded.job_id, slot = excluded.slot, pid = excluded.pid, started = excluded.started,"
    " detail = excluded.detail"
)


class WorkerTables(Tables):
    """See `WorkerLedger`."""

    async def put_worker(self, worker: WorkerRecord) -> None:
        """See the port."""
        await self._execute(
            _PUT,
            (worker.worker_id, worker.job_id, worker.slot, worker.pid, worker.started, worker.detail),
        )

    async def remove_worker(self, worker_id: str) -> None:
        """See the port."""
        await self._execute("DELETE FROM workers WHERE worker_id = ?", (worker_id,))

    async def workers(self, job_id: str | None = None) -> list[WorkerRecord]:
        """See the port."""
        of_job, values = ("", ()) if job_id is None else (" WHERE job_id = ?", (job_id,))
        found = await self._select(
            f"SELECT {_COLUMNS} FROM workers{of_job} ORDER BY job_id, slot, worker_id",  # noqa: S608  # constants
            values,
        )
        return [WorkerRecord(*row) for row in found]
