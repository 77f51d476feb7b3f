"""Webhooks of jobs that are over."""

from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.job import WebhookStatus


class WebhookTables(Tables):
    """See `WebhookLedger`."""

    async def due_webhooks(self, limit: int) -> list[tuple[int, str]]:
        """See the port."""
        found = await self._select(
            "SELECT due_ns, job_id FROM webhooks JOIN jobs ON job = key"
            " WHERE due_ns IS NOT NULL ORDER BY due_ns LIMIT ?",
            (limit,),
        )
        return [(due_ns, job_id) for due_ns, job_id in found]

    async def set_webhook(self, job_id: str, webhook: WebhookStatus) -> None:
        """See the port."""
        values = (webhook.attempts, webhook.due_ns, webhook.delivered_ns, webhook.error, job_id)
        await self._execute(
            "UPDATE webhooks SET attempts = ?, due_ns = ?, delivered_ns = ?, error = ?"
            " WHERE job = (SELECT key FROM jobs WHERE job_id = ?)",
            values,
        )
