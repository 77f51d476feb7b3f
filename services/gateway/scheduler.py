"""The gateway's side of gRPC: one channel to the scheduler, and what to do while it is away.

A scheduler that is being restarted is back within seconds, so every call first waits for the connection. A call that
breaks off in the middle is made again only when it just reads: whether a submission was accepted is then not known,
and its sender is told so.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from cortex.batch.v1.resources_pb2 import BatchApi, Job
from services.common.errors import Category, CortexError
from services.common.grpc_errors import from_rpc_error
from services.common.names import MAX_MESSAGE_BYTES

CONNECT_S = 5.0
"""A restart of the scheduler takes 2 s."""
CALL_S = 60.0
"""A submission of 10 MiB onto a busy disk takes seconds."""
HEALTH_S = 2.0
READ_ATTEMPTS = 3

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


class Scheduler:
    """The scheduler's calls. All raise `CortexError`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
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
        return await self._write(self._stub.DeployApis, request)

    async def api(self, request: pb.GetApiRequest) -> pb.GetApiResponse:
        """One API and its versions."""
        return await self._read(self._stub.GetApi, request)

    async def apis(self) -> list[BatchApi]:
        """All APIs."""
        return list((await self._read(self._stub.ListApis, pb.ListApisRequest())).apis)

    async def delete(self, api_name: str) -> None:
        """Delete an API."""
        await self._write(self._stub.DeleteApi, pb.DeleteApiRequest(name=api_name))

    async def submit(self, request: pb.SubmitJobRequest) -> pb.SubmitJobResponse:
        """Submit a job."""
        return await self._write(self._stub.SubmitJob, request)

    async def job(self, api_name: str, job_id: str) -> pb.GetJobResponse:
        """One job and its API."""
        return await self._read(self._stub.GetJob, pb.GetJobRequest(api_name=api_name, job_id=job_id))

    async def batches(self, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
        """A page of a job's batches."""
        return await self._read(self._stub.ListBatches, request)

    async def retry(self, request: pb.RetryJobRequest) -> pb.RetryJobResponse:
        """Run a job's failed batches again."""
        return await self._write(self._stub.RetryJob, request)

    async def stop(self, api_name: str, job_id: str) -> None:
        """Stop a job."""
        await self._write(self._stub.StopJob, pb.StopJobRequest(api_name=api_name, job_id=job_id))

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
            page = await self._read(self._stub.ListJobs, request)
            for job in page.jobs:
                yield job
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(self, api_name: str, job_id: str) -> AsyncIterator[Job]:
        """The job now, and again whenever it changed, to its end; carries on over restarts of the scheduler."""
        request = pb.WatchJobRequest(api_name=api_name, job_id=job_id)
        attempts = 0
        while True:
            await self._connected()
            call = self._stub.WatchJob(request, metadata=_metadata())
            try:
                async for answer in call:
                    attempts = 0
                    yield answer.job
                return
            except grpc.RpcError as error:
                attempts += 1
                if attempts >= READ_ATTEMPTS or not _lost_connection(error):
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

    async def _read(self, method: _Method[_Response], request: object) -> _Response:
        for attempt in range(1, READ_ATTEMPTS + 1):
            await self._connected()
            try:
                return await method(request, timeout=CALL_S, wait_for_ready=True, metadata=_metadata())
            except grpc.RpcError as error:
                if attempt == READ_ATTEMPTS or not _lost_connection(error):
                    raise from_rpc_error(error) from error
        raise AssertionError("the last attempt returns or raises")

    async def _write(self, method: _Method[_Response], request: object) -> _Response:
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
            async with asyncio.timeout(CONNECT_S):
                await self._channel.channel_ready()
        except TimeoutError:
            raise CortexError(
                "system.unavailable", "the scheduler cannot be reached; try again shortly", Category.UNAVAILABLE
            ) from None


def _lost_connection(error: grpc.RpcError) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE


def _unanswered(error: grpc.RpcError) -> bool:
    """True when the connection broke, or the time ran out, before the scheduler had answered."""
    return from_rpc_error(error).kind == "system.unavailable"


def _metadata() -> tuple[tuple[str, str], ...]:
    return (("x-request-id", request_id.get()),)
