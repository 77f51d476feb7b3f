"""Tells receivers of jobs that are over, as Standard Webhooks describes it (standardwebhooks.com, version 1).

That a job's receiver is to be told is on disk with the job's end, and so is every attempt to do it: a webhook survives
restarts and is sent until it is taken, or until its receiver has failed for three days. It may arrive twice; its
`webhook-id` is then the same.
"""

import asyncio
import base64
import hashlib
import hmac
import logging

from services.common.errors import CortexError
from services.common.events import wait_within
from services.scheduler.domain.job_document import webhook_document
from services.scheduler.domain.model.job import JobRecord, WebhookStatus
from services.scheduler.domain.model.options import Webhook
from services.scheduler.domain.options import webhook_key
from services.scheduler.usecases.ports.clock import Clock
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.webhooks import WebhookSender

log = logging.getLogger(__name__)

DELAYS_SECONDS = (1, 5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before the second attempt, the third, and so on; then it is given up."""
GONE = 410
"""A receiver that says so wants no further attempts."""
SENT_AT_ONCE = 16
LEDGER_RETRY_SECONDS = 5.0


class Webhooks:
    """Sends what is due."""

    def __init__(self, ledger: Ledger, clock: Clock, sender: WebhookSender) -> None:
        self._ledger = ledger
        self._clock = clock
        self._sender = sender
        self._wanted = asyncio.Event()
        self._sending: set[str] = set()

    def wake(self) -> None:
        """A job is over."""
        self._wanted.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wanted.clear()
                await wait_within(self._wanted, await self._start_due(tasks))

    async def _start_due(self, tasks: asyncio.TaskGroup) -> float | None:
        """Begin what is due; seconds until there is more to do, None when that will be told."""
        try:
            known = await self._ledger.due_webhooks(limit=2 * SENT_AT_ONCE)
        except CortexError as error:
            log.error("webhooks cannot be read, trying again: %s", error.message)
            return LEDGER_RETRY_SECONDS
        for due_ns, job_id in known:
            if job_id in self._sending:
                continue
            wait_ns = due_ns - self._clock.now_ns()
            if wait_ns > 0:
                return wait_ns / 1e9
            if len(self._sending) >= SENT_AT_ONCE:
                break  # one that ends wakes us
            self._sending.add(job_id)
            tasks.create_task(self._tell(job_id), name=f"webhook of job {job_id}")
        return None

    async def _tell(self, job_id: str) -> None:
        try:
            job = await self._ledger.job(job_id)
            if job is not None and job.spec.options.webhook is not None:
                await self._ledger.set_webhook(job_id, await self._attempt(job, job.spec.options.webhook))
        except CortexError as error:
            log.error("job %s: its webhook waits for the ledger: %s", job_id, error.message)
            await asyncio.sleep(LEDGER_RETRY_SECONDS)
        finally:
            self._sending.discard(job_id)
            self._wanted.set()

    async def _attempt(self, job: JobRecord, webhook: Webhook) -> WebhookStatus:
        """Send once; how it stands then."""
        attempts = (job.webhook.attempts if job.webhook is not None else 0) + 1
        body = webhook_document(job).encode()
        now_ns = self._clock.now_ns()
        status, error = await self._sender.send(
            webhook.url, signed_headers(webhook, job.spec.job_id, now_ns, body), body
        )
        if not error:
            return WebhookStatus(attempts, None, self._clock.now_ns(), "")
        log.warning("job %s: its webhook was not taken (attempt %d): %s", job.spec.job_id, attempts, error)
        if status == GONE or attempts > len(DELAYS_SECONDS):
            return WebhookStatus(attempts, None, None, f"{error}; given up")
        return WebhookStatus(attempts, self._clock.now_ns() + DELAYS_SECONDS[attempts - 1] * 10**9, None, error)


def signed_headers(webhook: Webhook, job_id: str, now_ns: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks, with an HMAC-SHA256 signature."""
    identity, seconds = f"msg_{job_id}", str(now_ns // 10**9)
    signed = b".".join((identity.encode(), seconds.encode(), body))
    signature = base64.b64encode(hmac.digest(webhook_key(webhook), signed, hashlib.sha256)).decode()
    return {"webhook-id": identity, "webhook-timestamp": seconds, "webhook-signature": f"v1,{signature}"}
