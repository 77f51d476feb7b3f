"""BatchService: what clients ask, turned into use cases and back."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from services.common.errors import CortexError
from services.scheduler.api import from_proto, item_stream, to_proto
from services.scheduler.domain.numbers import check_workers
from services.scheduler.domain.submission import Submission
from services.scheduler.usecases.apis import Apis
from services.scheduler.usecases.deploy import Deploy
from services.scheduler.usecases.output.batch_pages import BatchPages
from services.scheduler.usecases.output.results import TailResults
from services.scheduler.usecases.output.watch import watch
from services.scheduler.usecases.ports.logs import LogEntry, LogReader
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.submitting.retry import Retry
from services.scheduler.usecases.submitting.submit import Submit
from services.scheduler.usecases.submitting.submit_stream import SubmitStream

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
MAX_PAGE_BYTES = 4 * 1024 * 1024 - 4096
"""Of jobs on one page, unless a single one is larger: with its token a page is what a gRPC client takes by default."""
MAX_FIELD_HEADER_BYTES = 6
"""In front of each job on a page."""
MAX_DRY_RUN_BYTES = 2 * 1024 * 1024
"""Of files in the answer; the others are counted."""
JOBS_READ_AT_ONCE = 10
"""For a page: each may have a `config` of 10 MiB."""

Context = grpc.aio.ServicerContext[Any, Any]

# gRPC names the methods, and the stubs' base class knows only their synchronous forms.
# ruff: noqa: N802
# mypy: disable-error-code="override"


class BatchServicer(batch_service_pb2_grpc.BatchServiceServicer):
    """Serves APIs and jobs."""

    def __init__(
        self,
        apis: Apis,
        jobs: Jobs,
        deploy: Deploy,
        submit: Submit,
        submit_stream: SubmitStream,
        retry: Retry,
        batches: BatchPages,
        results: TailResults,
        logs: LogReader,
    ) -> None:
        self._apis = apis
        self._jobs = jobs
        self._deploy = deploy
        self._submit = submit
        self._submit_stream = submit_stream
        self._retry = retry
        self._batches = batches
        self._results = results
        self._logs = logs

    async def DeployApis(self, request: pb.DeployApisRequest, context: Context) -> pb.DeployApisResponse:
        """Deploy every API of a file."""
        deployed = await self._deploy.deploy(request.file_name, request.config, request.force)
        return pb.DeployApisResponse(
            results=[pb.DeployResult(api=to_proto.api(api), message=message) for api, message in deployed]
        )

    async def GetApi(self, request: pb.GetApiRequest, context: Context) -> pb.GetApiResponse:
        """One API."""
        by_endpoint = request.HasField("endpoint")
        name = await self._apis.at_endpoint(request.endpoint) if by_endpoint else request.name
        api, versions = await self._apis.get(name, request.api_id or None)
        return pb.GetApiResponse(
            api=to_proto.api(api), versions=[to_proto.api_version(version) for version in versions]
        )

    async def ListApis(self, request: pb.ListApisRequest, context: Context) -> pb.ListApisResponse:
        """All APIs."""
        return pb.ListApisResponse(apis=[to_proto.api(api) for api in await self._apis.deployed()])

    async def DeleteApi(self, request: pb.DeleteApiRequest, context: Context) -> pb.DeleteApiResponse:
        """Delete an API and stop its jobs."""
        await self._apis.delete(request.name)
        return pb.DeleteApiResponse()

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmitJobResponse:
        """Accept a job."""
        submission = from_proto.submission(request)
        if request.dry_run:
            return await self._dry_run(request.api_name, submission)
        view = await self._submit(request.api_name, submission, from_proto.request_key(request))
        return pb.SubmitJobResponse(job=to_proto.job(view))

    async def _dry_run(self, api_name: str, submission: Submission) -> pb.SubmitJobResponse:
        response = pb.SubmitJobResponse()
        room = MAX_DRY_RUN_BYTES
        async with aclosing(self._submit.check(api_name, submission)) as files:
            async for uri in files:
                room -= len(uri.encode()) + MAX_FIELD_HEADER_BYTES
                if room >= 0:
                    response.files.append(uri)
                else:
                    room = -1  # for good
                    response.more_files += 1
        return response

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        """One job."""
        view = await self._jobs.view(request.api_name, request.job_id)
        api = await self._apis.run_by(view.job.spec)
        return pb.GetJobResponse(job=to_proto.job(view), api=to_proto.api(api) if api is not None else None)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Jobs, newest first: as many as were asked for, or as fit."""
        page = pb.ListJobsResponse(next_page_token=request.page_token)
        room = _page_size(request.page_size)
        bytes_left = MAX_PAGE_BYTES
        while room:
            wanted = min(room, JOBS_READ_AT_ONCE)
            views = await self._jobs.views(
                request.api_name or None, running_only=request.running_only, limit=wanted, after=page.next_page_token
            )
            for view in views:
                job = to_proto.job(view)
                bytes_left -= job.ByteSize() + MAX_FIELD_HEADER_BYTES
                if bytes_left < 0 and page.jobs:
                    return page
                page.jobs.append(job)
                page.next_page_token = job.job_id
            if len(views) < wanted:
                page.next_page_token = ""
                return page
            room -= wanted
        return page

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        """A job's batches: as many as were asked for, or as fit."""
        found = await self._batches(
            request.api_name,
            request.job_id,
            from_proto.batch_states(request.states),
            from_proto.first_batch(request.page_token),
            _page_size(request.page_size),
        )
        following = "" if found.following is None else str(found.following)
        return pb.ListBatchesResponse(
            batches=[to_proto.batch(batch) for batch in found.batches], next_page_token=following
        )

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        """Accept a job of another one's failed batches."""
        workers = request.workers if request.HasField("workers") else None
        key = from_proto.request_key(request)
        view, warnings = await self._retry(request.api_name, request.job_id, workers, key)
        return pb.RetryJobResponse(job=to_proto.job(view), warnings=warnings)

    async def SubmitJobStream(
        self, request_iterator: AsyncIterator[pb.SubmitJobStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitJobStreamResponse]:
        """Accept a job whose items come one after the other."""
        async with aclosing(item_stream.serve(request_iterator, context, self._submit_stream, self._jobs)) as answers:
            async for answer in answers:
                yield answer

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.UpdateJobResponse:
        """Change a running job."""
        workers = check_workers(request.workers) if request.HasField("workers") else None
        paused = request.paused if request.HasField("paused") else None
        if workers is None and paused is None:
            raise CortexError("configreader.must_be_defined", "nothing to change is given: give workers, or paused")
        view = await self._jobs.update(request.api_name, request.job_id, workers, paused)
        return pb.UpdateJobResponse(job=to_proto.job(view))

    async def TailResults(
        self, request: pb.TailResultsRequest, context: Context
    ) -> AsyncIterator[pb.TailResultsResponse]:
        """Replies, or failed batches."""
        pages = self._results(
            request.api_name,
            request.job_id,
            failed=request.failed,
            follow=request.follow,
            first=max(0, request.first_index),
        )
        async with aclosing(pages) as pages_:  # type: ignore[type-var]  # it is a generator
            async for page in pages_:
                yield pb.TailResultsResponse(batches=[to_proto.batch(batch) for batch in page])

    async def StopJob(self, request: pb.StopJobRequest, context: Context) -> pb.StopJobResponse:
        """Stop a running job."""
        await self._jobs.stop(request.api_name, request.job_id)
        return pb.StopJobResponse()

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        """A job now and at every change."""
        if not 0 <= request.min_interval_seconds < math.inf:  # nor NaN
            given = f"min_interval_seconds: it must be a number of seconds from 0, not {request.min_interval_seconds}"
            raise CortexError("job.invalid_watch_interval", given)
        watched = watch(self._jobs, request.api_name, request.job_id, request.min_interval_seconds)
        async with aclosing(watched) as views:
            async for view in views:
                yield pb.WatchJobResponse(job=to_proto.job(view))

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """What a job's containers wrote."""
        await self._jobs.view(request.api_name, request.job_id)
        run = self._jobs.run(request.job_id)
        finished = run.gone if run is not None else _already()
        async for entries in self._logs.tail(request.api_name, request.job_id, request.follow, finished):
            yield pb.TailLogsResponse(lines=[_line(entry) for entry in entries])


def _page_size(wanted: int) -> int:
    return min(wanted, LARGEST_PAGE) if wanted > 0 else DEFAULT_PAGE


def _already() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _line(entry: LogEntry) -> pb.LogLine:
    return pb.LogLine(
        time=to_proto.timestamp(entry.time_ns), worker=entry.worker, container=entry.container, message=entry.message
    )
