"""Notices of jobs' ends, due to their webhooks."""

from services.scheduler.adapters.sqlite.tables import Tables
from services.scheduler.domain.model.job import Notice


class NoticeTables(Tables):
    """See `NoticeLedger`."""

    async def notices(self, limit: int) -> list[tuple[int, str]]:
        """See the port."""
        query = (
            "SELECT due_ns, job_id FROM notices JOIN jobs ON job = key WHERE due_ns IS NOT NULL ORDER BY due_ns LIMIT ?"
        )
        return [(due_ns, job_id) for due_ns, job_id in await self._select(query, (limit,))]

    async def set_notice(self, job_id: str, notice: Notice) -> None:
        """See the port."""
        values = (notice.attempts, notice.due_ns, notice.delivered_ns, notice.error, job_id)
        await self._execute(
            "UPDATE notices SET attempts = ?, due_ns = ?, delivered_ns = ?, error = ?"
            " WHERE job = (SELECT key FROM jobs WHERE job_id = ?)",
            values,
        )
