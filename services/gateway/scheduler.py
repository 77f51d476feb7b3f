"""The gateway's side of gRPC: one channel to the scheduler, and what to do while it is away.

A scheduler that is being restarted is back within seconds, and where there are replicas another one leads soon, so
every call first waits for the connection. A call that breaks off in the middle is made again only when that changes
nothing: when it just reads, or carries the id of its request. Otherwise it is not known what became of it, and its
sender is told so.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from opentelemetry.trace import get_current_span

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from cortex.batch.v1.resources_pb2 import Batch, BatchApi, Job
from services.common.errors import Category, CortexError
from services.common.grpc_errors import from_rpc_error
from services.common.names import MAX_MESSAGE_BYTES
from services.common.telemetry import HEADER as TRACE_HEADER
from services.common.telemetry import traceparent

CONNECT_S = 5.0
"""A restart of the scheduler takes 2 s."""
FAILOVER_S = 20.0
"""A standby takes over within 15 s."""
CALL_S = 60.0
"""A submission of 10 MiB onto a busy disk takes seconds."""
HEALTH_S = 2.0
ATTEMPTS = 3
"""For a call that may be made again."""

OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", -1),  # several jobs in one answer, each with a `config` of any size
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the HTTP request that is being answered; goes along as metadata."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Method = Callable[..., Awaitable[_Response]]


@dataclass
class StreamedJob:
    """What the scheduler has told of a job while its items are still being sent."""

    job_id: str = ""
    """Empty until the job is accepted."""
    items: int = 0
    """On disk at least."""

    def heard(self, answer: pb.SubmitJobStreamResponse) -> None:
        """The next answer."""
        self.job_id = answer.job.job_id or self.job_id
        self.items = answer.items

    def after(self, error: CortexError) -> CortexError:
        """What ends the stream from this side, with what that does to the job."""
        if not self.job_id:
            return error
        return CortexError(error.kind, f"{error.message}; job {self.job_id} ends as enqueue_failed", error.category)


class Scheduler:
    """The scheduler's calls. All raise `CortexError`."""

    def __init__(self, channel: grpc.aio.Channel, *, replicated: bool = False) -> None:
        self._channel = channel
        self._replicated = replicated
        self._stub = BatchServiceStub(channel)
        self._check_health: grpc.aio.UnaryUnaryMultiCallable[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ] = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def healthy(self) -> bool:
        """True when the scheduler says, within `HEALTH_S`, that it serves."""
        with suppress(grpc.RpcError):
            answer = await self._check_health(health_pb2.HealthCheckRequest(), timeout=HEALTH_S)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False

    async def deploy(self, request: pb.DeployApisRequest) -> pb.DeployApisResponse:
        """Deploy a configuration file."""
        return await self._once(self._stub.DeployApis, request)

    async def api(self, request: pb.GetApiRequest) -> pb.GetApiResponse:
        """One API and its versions."""
        return await self._repeatable(self._stub.GetApi, request)

    async def apis(self) -> list[BatchApi]:
        """All APIs."""
        return list((await self._repeatable(self._stub.ListApis, pb.ListApisRequest())).apis)

    async def delete(self, api_name: str) -> None:
        """Delete an API."""
        await self._once(self._stub.DeleteApi, pb.DeleteApiRequest(name=api_name))

    async def submit(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        """Submit a job."""
        again = request.request_id != ""  # then it is told what became of the first
        return await (self._repeatable if again else self._once)(self._stub.SubmitJob, request)

    async def submit_stream(
        self, requests: AsyncIterable[pb.SubmitJobStreamRequest], told: StreamedJob
    ) -> pb.SubmitJobStreamResponse:
        """Submit a job whose items come one after the other; the last answer, when all are on disk.

        The scheduler may answer before the last request: a refusal, or a job that is there already. What `requests`
        raises is raised, and ends the job. `told` is what is known of it meanwhile.
        """
        await self._connected()
        call = self._stub.SubmitJobStream(metadata=_metadata() + _trace())
        answering = asyncio.create_task(_last_answer(call, told), name="answers to a stream of items")
        sending = asyncio.create_task(_send(call, requests), name="a stream of items")
        try:
            await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                sending.result()
            return await answering
        finally:
            call.cancel()
            sending.cancel()
            answering.cancel()
            await asyncio.wait({answering, sending})

    async def job(self, api_name: str, job_id: str) -> pb.GetJobResponse:
        """One job and its API."""
        return await self._repeatable(self._stub.GetJob, pb.GetJobRequest(api_name=api_name, job_id=job_id))

    async def batches(self, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
        """A page of a job's batches."""
        return await self._repeatable(self._stub.ListBatches, request)

    async def retry(self, request: pb.RetryJobRequest) -> pb.RetryJobResponse:
        """Run a job's failed batches again."""
        again = request.request_id != ""
        return await (self._repeatable if again else self._once)(self._stub.RetryJob, request)

    async def update(self, request: pb.UpdateJobRequest) -> Job:
        """Change a running job."""
        return (await self._repeatable(self._stub.UpdateJob, request)).job

    async def stop(self, api_name: str, job_id: str) -> None:
        """Stop a job."""
        await self._once(self._stub.StopJob, pb.StopJobRequest(api_name=api_name, job_id=job_id))

    async def jobs(self, api_name: str = "", *, running_only: bool = False) -> AsyncIterator[Job]:
        """Jobs, newest first, page by page as they are asked for."""
        async for job in self._pages(pb.ListJobsRequest(api_name=api_name, running_only=running_only)):
            yield job

    async def latest_jobs(self, api_name: str, count: int) -> list[Job]:
        """The newest jobs of an API, at most so many."""
        found: list[Job] = []
        async for job in self._pages(pb.ListJobsRequest(api_name=api_name, page_size=count)):
            found.append(job)
            if len(found) == count:
                break
        return found

    async def _pages(self, request: pb.ListJobsRequest) -> AsyncIterator[Job]:
        while True:
            page = await self._repeatable(self._stub.ListJobs, request)
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(self, api_name: str, job_id: str) -> AsyncIterator[Job]:
        """The job now, and again whenever it changed, to its end; carries on over restarts of the scheduler."""
        request = pb.WatchJobRequest(api_name=api_name, job_id=job_id)
        async with aclosing(self._resumed(self._stub.WatchJob, request)) as answers:
            async for answer in answers:
                yield answer.job

    async def results(self, request: pb.TailResultsRequest) -> AsyncGenerator[Sequence[Batch], None]:
        """Batches by index, page by page; carries on over restarts of the scheduler.

        A first page, perhaps an empty one, says that the scheduler has begun.
        """
        request = pb.TailResultsRequest.FromString(request.SerializeToString())
        async with aclosing(self._resumed(self._stub.TailResults, request)) as answers:
            async for answer in answers:
                if answer.batches:
                    request.first_index = answer.batches[-1].index + 1  # where it goes on if this call breaks off
                yield answer.batches

    async def _resumed(self, method: Callable[..., Any], request: object) -> AsyncGenerator[Any, None]:
        """The answers to a request that only reads; it is made anew, as it is then, when the connection breaks."""
        attempts = 0
        while True:
            await self._connected()
            call = method(request, metadata=_metadata())
            try:
                async for answer in call:
                    attempts = 0
                    yield answer
                return
            except grpc.RpcError as error:
                attempts += 1
                if attempts >= ATTEMPTS or not _lost_connection(error):
                    raise from_rpc_error(error) from error
            finally:
                call.cancel()

    async def logs(self, request: pb.TailLogsRequest) -> AsyncIterator[pb.LogLine]:
        """What a job's containers wrote."""
        await self._connected()
        call = self._stub.TailLogs(request, metadata=_metadata())
        try:
            async for answer in call:
                for line in answer.lines:
                    yield line
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def _repeatable(self, method: _Method[_Response], request: object) -> _Response:
        for attempt in range(1, ATTEMPTS + 1):
            await self._connected()
            try:
                return await method(request, timeout=CALL_S, wait_for_ready=True, metadata=_metadata())
            except grpc.RpcError as error:
                if attempt == ATTEMPTS or not _lost_connection(error):
                    raise from_rpc_error(error) from error
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, method: _Method[_Response], request: object) -> _Response:
        await self._connected()
        try:
            # Until it is on a connection, gRPC holds it back for a new one; from then on it is sent once.
            return await method(request, timeout=CALL_S, wait_for_ready=True, metadata=_metadata())
        except grpc.RpcError as error:
            if _unanswered(error):
                raise CortexError(
                    "system.unavailable",
                    "the scheduler went away before it answered: whether it did what was asked is not known; look "
                    "before you ask again",
                    Category.UNAVAILABLE,
                ) from error
            raise from_rpc_error(error) from error

    async def _connected(self) -> None:
        try:
            async with asyncio.timeout(FAILOVER_S if self._replicated else CONNECT_S):
                await self._channel.channel_ready()
        except TimeoutError:
            raise CortexError(
                "system.unavailable", "the scheduler cannot be reached; try again shortly", Category.UNAVAILABLE
            ) from None


async def _send(call: grpc.aio.StreamStreamCall[Any, Any], requests: AsyncIterable[Message]) -> None:
    """Send requests as fast as they are taken. When the call is over its answers say why."""
    with suppress(grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        await call.wait_for_connection()
        async for request in requests:
            if call.done():
                return
            await _write(call, request)
        await call.done_writing()


async def _write(call: grpc.aio.StreamStreamCall[Any, Any], request: Message) -> None:
    # `call.write` puts an error of its own in place of the scheduler's, half of the time, when the scheduler ends the
    # call meanwhile: https://github.com/grpc/grpc/issues/36066. This is what it does, without that.
    await call._cython_call.send_serialized_message(request.SerializeToString())  # type: ignore[attr-defined]


async def _last_answer(call: grpc.aio.StreamStreamCall[Any, Any], told: StreamedJob) -> pb.SubmitJobStreamResponse:
    last, warnings = pb.SubmitJobStreamResponse(), []
    try:
        async for last in call:
            told.heard(last)
            warnings += last.warnings
    except grpc.RpcError as error:
        if _unanswered(error):
            raise CortexError("system.unavailable", _broken_stream(told), Category.UNAVAILABLE) from error
        raise from_rpc_error(error) from error
    if not last.HasField("job"):
        text = "the scheduler ended a stream of items without saying what became of it"
        raise CortexError("system.unexpected_error", text, Category.INTERNAL)
    last.warnings[:] = warnings
    return last


def _broken_stream(told: StreamedJob) -> str:
    if not told.job_id:
        return (
            "the scheduler went away before it answered: whether there is a job is not known; look before you ask again"
        )
    return (
        f"the scheduler went away in the middle: of job {told.job_id} at least {told.items} items are on disk, and it "
        "ends as enqueue_failed unless all had come; look at it before you submit again"
    )


def _lost_connection(error: grpc.RpcError) -> bool:
    lost = isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE
    return lost and _unanswered(error)  # and not because the scheduler says that something behind it is away


def _unanswered(error: grpc.RpcError) -> bool:
    """True when the connection broke, or the time ran out, before the scheduler had answered."""
    return from_rpc_error(error).kind == "system.unavailable"


def _metadata() -> tuple[tuple[str, str], ...]:
    return (("x-request-id", request_id.get()),)


def _trace() -> tuple[tuple[str, str], ...]:
    """The current trace, for calls that get no span of their own."""
    current = traceparent(get_current_span())
    return ((TRACE_HEADER, current),) if current else ()
