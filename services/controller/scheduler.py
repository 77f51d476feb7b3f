"""The scheduler's calls that we need. Nothing is tried twice here: a resource's task starts anew when one fails."""

from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, TypeVar

import grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from cortex.batch.v1.resources_pb2 import BatchApi, Job
from services.common.errors import Category
from services.common.grpc_errors import from_rpc_error

if TYPE_CHECKING:
    from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceAsyncStub  # exists in the stubs alone

CALL_SECONDS = 60.0
STATUS_SECONDS = 1.0
"""Between two looks at a job that works."""

REQUEST_REUSED = "job.idempotency_key_reused"
API_NOT_DEPLOYED = "resources.api_not_deployed"
LASTING = frozenset({Category.INVALID, Category.TOO_LARGE, Category.NOT_FOUND, Category.CONFLICT, Category.UNSUPPORTED})
"""Refusals that stay what they are until the spec changes."""

_Response = TypeVar("_Response")


class Scheduler:
    """The scheduler. Everything raises `CortexError`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: BatchServiceAsyncStub = BatchServiceStub(channel)

    async def deploy(self, file_name: str, config: bytes) -> BatchApi:
        """Deploy an API; it as it is then."""
        request = pb.DeployApisRequest(file_name=file_name, config=config)
        return (await _answer(self._stub.DeployApis(request, timeout=CALL_SECONDS))).results[0].api

    async def get_api(self, api_name: str) -> BatchApi:
        """An API; `resources.api_not_deployed` when there is none."""
        return (await _answer(self._stub.GetApi(pb.GetApiRequest(name=api_name), timeout=CALL_SECONDS))).api

    async def delete(self, api_name: str) -> None:
        """Delete an API and stop its jobs."""
        await _answer(self._stub.DeleteApi(pb.DeleteApiRequest(name=api_name), timeout=CALL_SECONDS))

    async def submit(self, request: pb.SubmitJobRequest) -> Job:
        """Submit a job, or find what the same request has become."""
        return (await _answer(self._stub.SubmitJob(request, timeout=CALL_SECONDS))).job

    async def job(self, api_name: str, job_id: str) -> Job:
        """A job as it is."""
        return (await _answer(self._stub.GetJob(pb.GetJobRequest(api_name=api_name, job_id=job_id)))).job

    async def update(self, request: pb.UpdateJobRequest) -> Job:
        """Change a running job."""
        return (await _answer(self._stub.UpdateJob(request, timeout=CALL_SECONDS))).job

    async def stop(self, api_name: str, job_id: str) -> None:
        """Stop a job."""
        await _answer(self._stub.StopJob(pb.StopJobRequest(api_name=api_name, job_id=job_id), timeout=CALL_SECONDS))

    async def watch(self, api_name: str, job_id: str) -> AsyncGenerator[Job, None]:
        """The job now, and again when it changed, at most once in `STATUS_SECONDS`, to its end."""
        request = pb.WatchJobRequest(api_name=api_name, job_id=job_id, min_interval_seconds=STATUS_SECONDS)
        call = self._stub.WatchJob(request)
        try:
            async for answer in call:
                yield answer.job
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


async def _answer(call: Awaitable[_Response]) -> _Response:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
