"""Jobs that tell a receiver of their end: signed, again after failures, also over restarts."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import resources_pb2
from services.scheduler.usecases import webhooks
from tests.integration.scheduler_kit import Kit, ScriptedDriver, scheduler

KEY = bytes(range(40))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """A real HTTP server that answers what the test says: the statuses in turn, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    got: "SimpleQueue[tuple[dict[str, str], bytes]]" = field(default_factory=SimpleQueue)
    url: str = ""

    async def next(self) -> tuple[dict[str, str], bytes]:
        return await asyncio.to_thread(self.got.get, timeout=10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0]
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            found.got.put(({name.lower(): value for name, value in self.headers.items()}, body))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/jobs"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


async def finished_job(kit: Kit, url: str) -> str:
    await kit.deploy()
    request = pb.SubmitJobRequest(api_name="hello", workers=1, webhook=resources_pb2.Webhook(url=url, secret=SECRET))
    request.item_list.items_json = "[1, 2]"
    request.item_list.batch_size = 1
    job = (await kit.batch.SubmitJob(request)).job
    assert SECRET not in str(job)
    worker = await kit.worker()
    await worker.open()
    await worker.send(*(worker.result(lease, ok=lease.batch_index == 0) for lease in await worker.lease(2)))
    await worker.answer_completion()
    await kit.until(job.job_id, lambda job: job.HasField("end_time"))
    return job.job_id


async def stored(kit: Kit, job_id: str) -> resources_pb2.WebhookDelivery:
    """How the ledger says that it stands, once an attempt is recorded."""
    async with asyncio.timeout(10):
        while not (job := await kit.job(job_id)).webhook.attempts:
            await asyncio.sleep(0.01)  # an attempt is no change of the job that one could watch
    return job.webhook


def check_signature(headers: dict[str, str], body: bytes) -> None:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_a_receiver_is_told_of_the_end_once_and_signed(
    tmp_path: Path, driver: ScriptedDriver, receiver: Receiver
) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id = await finished_job(kit, receiver.url)
        headers, body = await receiver.next()
        check_signature(headers, body)
        assert headers["webhook-id"] == f"msg_{job_id}"
        assert headers["content-type"] == "application/json"
        message = json.loads(body)
        assert message["type"] == "job.completed_with_failures"
        data = message["data"]
        assert (data["job_id"], data["api_name"], data["status"]) == (job_id, "hello", "completed_with_failures")
        assert data["batch_counts"] == {"pending": 0, "succeeded": 1, "failed": 1}
        assert (data["total_batch_count"], data["end_time"]) == (2, message["timestamp"])
        delivery = await stored(kit, job_id)
        assert (delivery.url, delivery.attempts, delivery.error) == (receiver.url, 1, "")
        assert delivery.HasField("delivered_time")
        assert await kit.ledger.due_webhooks(10) == []
    async with scheduler(tmp_path, driver) as kit:  # a restart does not tell it again
        assert await kit.ledger.due_webhooks(10) == []
    assert receiver.got.empty()


async def test_a_receiver_that_fails_is_told_again_with_the_same_id(
    tmp_path: Path, driver: ScriptedDriver, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "DELAYS_SECONDS", (0, 0, 0))
    receiver.statuses = [500, 302, 204]
    async with scheduler(tmp_path, driver) as kit:
        job_id = await finished_job(kit, receiver.url)
        told = [await receiver.next() for _ in range(3)]
        assert {headers["webhook-id"] for headers, _ in told} == {f"msg_{job_id}"}
        for headers, body in told:
            check_signature(headers, body)
        async with asyncio.timeout(10):
            while not (await kit.job(job_id)).webhook.HasField("delivered_time"):
                await asyncio.sleep(0.01)  # as above
        assert (await kit.job(job_id)).webhook.attempts == 3
    assert receiver.got.empty()


@pytest.mark.parametrize(("status", "attempts"), [(410, 1), (500, 3)])
async def test_a_receiver_that_wants_none_or_keeps_failing_is_given_up(
    status: int,
    attempts: int,
    tmp_path: Path,
    driver: ScriptedDriver,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks, "DELAYS_SECONDS", (0, 0))
    receiver.statuses = [status]
    async with scheduler(tmp_path, driver) as kit:
        job_id = await finished_job(kit, receiver.url)
        for _ in range(attempts):
            await receiver.next()
        async with asyncio.timeout(10):
            while await kit.ledger.due_webhooks(10):
                await asyncio.sleep(0.01)  # as above
        delivery = (await kit.job(job_id)).webhook
        assert (delivery.attempts, delivery.error) == (attempts, f"{receiver.url} answered {status}; given up")
    assert receiver.got.empty()


async def test_a_webhook_that_is_due_survives_a_restart(
    tmp_path: Path, driver: ScriptedDriver, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "DELAYS_SECONDS", (1,))
    receiver.statuses = [503, 200]
    async with scheduler(tmp_path, driver) as kit:
        job_id = await finished_job(kit, receiver.url)
        first, _ = await receiver.next()
        assert (await stored(kit, job_id)).error == f"{receiver.url} answered 503"
    async with scheduler(tmp_path, driver) as kit:
        second, _ = await receiver.next()
        assert first["webhook-id"] == second["webhook-id"]


async def test_nobody_at_the_url_is_told_in_a_sentence(tmp_path: Path, driver: ScriptedDriver) -> None:
    async with scheduler(tmp_path, driver) as kit:
        job_id = await finished_job(kit, "http://127.0.0.1:1/jobs")
        delivery = await stored(kit, job_id)
        assert delivery.error == "http://127.0.0.1:1/jobs cannot be reached: [Errno 111] Connection refused"
        assert not delivery.HasField("delivered_time")
