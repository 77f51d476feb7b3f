"""WorkerService: what dequeuers say on the work stream becomes calls on a job's run.

Reading and writing are two directions of one call; `stream_link.py` is what writes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from math import isfinite
from typing import Any

import grpc

from cortex.batch.v1 import worker_service_pb2, worker_service_pb2_grpc
from services.common.errors import CortexError
from services.scheduler.api.stream_link import StreamLink
from services.scheduler.domain.model.job import Completion
from services.scheduler.domain.model.worker import Health, Phase
from services.scheduler.usecases.ports.tokens import Identity, Tokens
from services.scheduler.usecases.running.admission import admit
from services.scheduler.usecases.running.batches import AttemptResult, HeldLease, Returned
from services.scheduler.usecases.running.job_run import JobRun
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.running.worker import Worker

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
SILENT_HEARTBEATS = 4
"""After so many heartbeats' time without a word the stream counts as broken."""
SUCCEEDED = worker_service_pb2.Result.OUTCOME_SUCCEEDED
PHASES = {
    worker_service_pb2.Health.PHASE_CREATING: Phase.CREATING,
    worker_service_pb2.Health.PHASE_NOT_READY: Phase.NOT_READY,
    worker_service_pb2.Health.PHASE_READY: Phase.READY,
    worker_service_pb2.Health.PHASE_BACKOFF: Phase.NOT_READY,
    worker_service_pb2.Health.PHASE_TERMINATING: Phase.TERMINATING,
}

Request = worker_service_pb2.WorkRequest
Response = worker_service_pb2.WorkResponse
Context = grpc.aio.ServicerContext[Request, Response]


class WorkerServicer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Serves the work stream."""

    def __init__(self, jobs: Jobs, tokens: Tokens) -> None:
        self._jobs = jobs
        self._tokens = tokens

    async def Work(self, request_iterator: AsyncIterator[Request], context: Context) -> AsyncIterator[Response]:  # noqa: N802  # gRPC names the method
        """One worker's stream, from its hello until one side ends it."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS * SILENT_HEARTBEATS):
                hello = await anext(request_iterator, None)
        except TimeoutError:
            return
        if hello is None:
            return
        run, worker, identity = admit(self._jobs, self._tokens, hello.hello.token, hello.hello.worker_id)
        link = StreamLink()
        results = [_result(result) for result in hello.results]
        held = [HeldLease(lease.batch_index, lease.epoch, lease.attempt) for lease in hello.hello.held]
        reader: asyncio.Task[None] | None = None
        try:
            dropped = run.workers.hello(worker, link, held, results, completing=hello.hello.completing)
            link.send_welcome(dropped, HEARTBEAT_SECONDS, keep_replies=run.record.spec.options.results is not None)
            _obey(run, worker, link, hello)
            reader = asyncio.create_task(self._read(request_iterator, run, worker, identity, link))
            async for message in link.messages():
                yield message
        finally:
            if reader is not None:
                reader.cancel()
            run.workers.disconnected(worker, link)

    async def _read(
        self, requests: AsyncIterator[Request], run: JobRun, worker: Worker, identity: Identity, link: StreamLink
    ) -> None:
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + identity.renew_seconds
        try:
            while True:
                async with asyncio.timeout(HEARTBEAT_SECONDS * SILENT_HEARTBEATS):
                    request = await anext(requests)
                if link.closed:
                    return  # what a replaced stream still says is out of date
                _obey(run, worker, link, request)
                if loop.time() > renew_at:
                    renew_at = loop.time() + identity.renew_seconds
                    link.send_token(self._tokens.sign(identity.job_id, identity.worker_id))
        except StopAsyncIteration:
            link.close("the worker closed its stream")
        except TimeoutError:
            link.close("the worker was silent for too long")
        except (grpc.RpcError, CortexError) as error:
            link.close(str(error))
        except Exception:  # the border of this task: the stream ends, the job goes on
            log.exception("the stream of worker %s failed", worker.id)
            link.close("internal error")
        finally:
            # Not left to the sending side alone: it may be stuck in a message that the worker does not take.
            run.workers.disconnected(worker, link)


def _obey(run: JobRun, worker: Worker, link: StreamLink, request: Request) -> None:
    """Do what one message says: first how the worker is, then what ended, so that what is given next fits both."""
    if request.HasField("health"):
        health = request.health
        phase = PHASES.get(health.phase, Phase.NOT_READY)
        told = (health.reason, health.failed_starts, health.out_of_memory, health.cannot_start)
        run.workers.health(worker, Health(phase, *told))
    if request.HasField("credit"):
        run.workers.credit(worker, request.credit.batches, request.credit.bytes)
    if request.results:
        run.batches.results(worker, [_result(result) for result in request.results])
    if request.returned:
        run.batches.returned(
            worker,
            [Returned(entry.batch_index, entry.epoch, entry.lost_in_container) for entry in request.returned],
        )
    if request.HasField("completion"):
        run.workers.completion(worker, Completion(request.completion.http_status, request.completion.error))
    if request.HasField("heartbeat"):
        link.send_heartbeat()
    if request.HasField("goodbye"):
        run.workers.leaving(worker)


def _result(message: Any) -> AttemptResult:
    return AttemptResult(
        message.batch_index,
        message.epoch,
        message.outcome == SUCCEEDED,
        message.http_status,
        max(0.0, message.duration_seconds) if isfinite(message.duration_seconds) else 0.0,
        message.error,
        message.reply,
    )
