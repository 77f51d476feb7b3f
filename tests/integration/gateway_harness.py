# ruff: noqa: N802  # gRPC names the methods
"""A gateway on a free port in front of a scheduler that is a real gRPC server and does what a test tells it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import urllib3
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import trace_service_pb2
from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceServicer, add_BatchServiceServicer_to_server
from cortex.batch.v1.resources_pb2 import Batch, BatchApi, BatchApiVersion, Job
from cortex.batch.v1.trace_service_pb2_grpc import TraceServiceServicer, add_TraceServiceServicer_to_server
from services.common import telemetry
from services.common.errors import Category, CortexError
from services.common.grpc_errors import ErrorInterceptor
from services.common.lifecycle import Stop
from services.common.names import CHANNEL_OPTIONS
from services.gateway import server, wiring
from services.gateway.settings import Address, Settings

JOB_ID = "69a1b2c3d4e5f607"
SPEC_JSON = '{"name":"digits","kind":"BatchAPI","big":12345678901234567890,"one":1.0}'

Context = grpc.aio.ServicerContext[Any, Any]


def api(name: str = "digits", api_id: str = "v1") -> BatchApi:
    return BatchApi(
        name=name,
        api_id=api_id,
        endpoint=f"/{name}",
        spec_json=SPEC_JSON,
        last_updated=Timestamp(seconds=1_700_000_000),
    )


def job(job_id: str = JOB_ID, status: Job.Status.ValueType = Job.STATUS_RUNNING, **fields: Any) -> Job:
    created = Timestamp(seconds=1_700_000_000, nanos=123_000_000)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    found = Job(job_id=job_id, api_name="digits", api_id="v1", workers=2, status=status, trace_id=trace_id)
    found.created_time.CopyFrom(created)
    found.MergeFrom(Job(**fields))
    return found


class Scheduler(BatchServiceServicer):
    """Answers as its attributes say and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[Mapping[str, str | bytes]] = []
        self.apis = {"digits": api()}
        self.versions = [BatchApiVersion(api_id="v1", last_updated=Timestamp(seconds=1_700_000_000))]
        self.jobs: dict[str, Job] = {JOB_ID: job()}
        self.error: CortexError | None = None
        self.warnings: list[str] = []
        self.changes: asyncio.Queue[Job | CortexError | None] = asyncio.Queue()
        self.lines: asyncio.Queue[pb.LogLine | None] = asyncio.Queue()
        self.stream_open = asyncio.Event()
        self.stream_over = asyncio.Event()
        self.arrived = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.page_size = 1000
        self.batches: list[Batch] = []
        self.more_files = 0
        self.pages: asyncio.Queue[list[Batch] | CortexError | None] = asyncio.Queue()
        self.items = bytearray()
        self.largest_message = 0
        self.ends_early = False

    @property
    def last(self) -> Any:
        return self.requests[-1]

    async def _take(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error

    def _api(self, name: str) -> BatchApi:
        if name not in self.apis:
            raise CortexError("resources.api_not_deployed", f"{name} is not deployed", Category.NOT_FOUND)
        return self.apis[name]

    def _job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise CortexError("job.not_found", f"no job {job_id}", Category.NOT_FOUND)
        return self.jobs[job_id]

    async def DeployApis(self, request: pb.DeployApisRequest, context: Context) -> pb.DeployApisResponse:
        await self._take(request, context)
        return pb.DeployApisResponse(
            results=[
                pb.DeployResult(api=found, message=f"created {name} (BatchAPI)") for name, found in self.apis.items()
            ]
        )

    async def GetApi(self, request: pb.GetApiRequest, context: Context) -> pb.GetApiResponse:
        await self._take(request, context)
        by_endpoint = {found.endpoint: name for name, found in self.apis.items()}
        name = by_endpoint.get(request.endpoint, "nothing") if request.HasField("endpoint") else request.name
        return pb.GetApiResponse(api=self._api(name), versions=self.versions)

    async def ListApis(self, request: pb.ListApisRequest, context: Context) -> pb.ListApisResponse:
        await self._take(request, context)
        return pb.ListApisResponse(apis=self.apis.values())

    async def DeleteApi(self, request: pb.DeleteApiRequest, context: Context) -> pb.DeleteApiResponse:
        await self._take(request, context)
        self._api(request.name)
        return pb.DeleteApiResponse()

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmitJobResponse:
        await self._take(request, context)
        self._api(request.api_name)
        if request.dry_run:
            return pb.SubmitJobResponse(files=["s3://bucket/a", "s3://bucket/b"], more_files=self.more_files)
        submitted = job(workers=request.workers, config_json=request.config_json, status=Job.STATUS_PENDING)
        return pb.SubmitJobResponse(job=submitted, warnings=self.warnings)

    async def SubmitJobStream(
        self, request_iterator: AsyncIterator[pb.SubmitJobStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitJobStreamResponse]:
        """Refuses the line that is `bad`, and reads nothing while it is held."""
        head = await anext(request_iterator)
        self.stream_open.set()
        self.requests.append(head)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self._api(head.job.api_name)
        submitted = job(workers=head.job.workers, config_json=head.job.config_json, status=Job.STATUS_ENQUEUING)
        yield pb.SubmitJobStreamResponse(job=submitted, warnings=self.warnings)
        try:
            async for request in request_iterator:
                if self.hold is not None:
                    await self.hold.wait()
                self.items += request.ndjson
                self.largest_message = max(self.largest_message, len(request.ndjson))
                self.arrived.set()
                if self.error is not None:
                    raise self.error
                if b"bad\n" in self.items:
                    line = head.first_line + self.items.index(b"bad\n")  # where each line before is empty
                    raise CortexError("json.malformed", f"line {line} is not valid JSON")
                if self.ends_early:
                    break
                yield pb.SubmitJobStreamResponse(items=self.items.count(b"\n"))
            yield pb.SubmitJobStreamResponse(job=submitted, items=self.items.count(b"\n"))
        finally:
            self.stream_over.set()

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.UpdateJobResponse:
        await self._take(request, context)
        found = self._job(request.job_id)
        if request.HasField("workers"):
            found.workers = request.workers
        if request.HasField("paused"):
            found.paused = request.paused
        return pb.UpdateJobResponse(job=found)

    async def TailResults(
        self, request: pb.TailResultsRequest, context: Context
    ) -> AsyncIterator[pb.TailResultsResponse]:
        await self._take(request, context)
        self._job(request.job_id)
        yield pb.TailResultsResponse()
        async for batches in self._stream(self.pages):
            yield pb.TailResultsResponse(batches=batches)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        await self._take(request, context)
        return pb.GetJobResponse(job=self._job(request.job_id), api=self._api(request.api_name))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        await self._take(request, context)
        found = [
            listed
            for job_id, listed in sorted(self.jobs.items())
            if request.api_name in ("", listed.api_name)
            and job_id > request.page_token
            and not (request.running_only and listed.HasField("end_time"))
        ]
        size = min(request.page_size or 100, self.page_size)
        more = found[size - 1].job_id if len(found) > size else ""
        return pb.ListJobsResponse(jobs=found[:size], next_page_token=more)

    async def StopJob(self, request: pb.StopJobRequest, context: Context) -> pb.StopJobResponse:
        await self._take(request, context)
        if self._job(request.job_id).HasField("end_time"):
            raise CortexError("job.job_is_not_in_progress", f"job {request.job_id} is over", Category.CONFLICT)
        return pb.StopJobResponse()

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        await self._take(request, context)
        self._job(request.job_id)
        return pb.ListBatchesResponse(batches=self.batches, next_page_token="7")

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        await self._take(request, context)
        self._job(request.job_id)
        return pb.RetryJobResponse(job=job("69a1b2c3d4e5f001", Job.STATUS_ENQUEUING, retry_of=request.job_id))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        await self._take(request, context)
        async for change in self._stream(self.changes):
            yield pb.WatchJobResponse(job=change)

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        await self._take(request, context)
        async for line in self._stream(self.lines):
            yield pb.TailLogsResponse(lines=[line])

    async def _stream(self, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        self.stream_open.set()
        try:
            while (value := await queue.get()) is not None:
                if isinstance(value, CortexError):
                    raise value
                yield value
        finally:
            self.stream_over.set()


class Traces(TraceServiceServicer):
    async def GetTrace(
        self, request: trace_service_pb2.GetTraceRequest, _context: Context
    ) -> trace_service_pb2.GetTraceResponse:
        span = trace_service_pb2.Span(
            span_id="00f067aa0ba902b7", name="POST /batch/{api_name}", service_name="cortex-gateway"
        )
        span.start_unix_nano, span.end_unix_nano = 1_700_000_000_000_000_001, 1_700_000_000_000_000_002
        span.attributes["trace"] = request.trace_id
        return trace_service_pb2.GetTraceResponse(spans=[span], dropped_spans=3)


@dataclass
class SchedulerServer:
    """The scheduler's process, as far as the gateway can tell."""

    target: str
    servicer: Scheduler = field(default_factory=Scheduler)
    health: HealthServicer = field(default_factory=HealthServicer)
    _server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS, interceptors=[ErrorInterceptor()])
        add_BatchServiceServicer_to_server(self.servicer, self._server)
        add_TraceServiceServicer_to_server(Traces(), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        await self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def not_serving(self) -> None:
        await self.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)

    async def kill(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        assert set(self.json) == {"kind", "message"}
        assert self.headers["content-type"] == "application/json"
        return str(self.json["kind"])


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    address: Address
    unix_socket: Path
    scheduler: SchedulerServer
    stop: Stop

    @property
    def asked(self) -> Scheduler:
        return self.scheduler.servicer

    async def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        def send() -> Answer:
            response = urllib3.request(
                method, self.address.url + path, body=body, headers=headers, retries=False, timeout=60, **more
            )
            return Answer(response.status, response.headers, response.data)

        return await asyncio.to_thread(send)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def submit(self, body: bytes | str, path: str = "/batch/digits") -> Answer:
        return await self.request("POST", path, body)

    async def raw(self, data: bytes) -> bytes:
        """Everything that comes back for these bytes, until the gateway closes the connection."""
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway in this process; its scheduler too, on a unix socket below the folder."""
    target = f"unix:{folder / 'scheduler.sock'}"
    scheduler = SchedulerServer(target)
    await scheduler.start()
    async with in_front_of(target, folder, **settings) as (address, stop):
        yield Gateway(address, folder / "http.sock", scheduler, stop)
    await scheduler.kill()


@asynccontextmanager
async def in_front_of(target: str, folder: Path, **settings: Any) -> AsyncIterator[tuple[Address, Stop]]:
    """A gateway in this process, with a unix socket below the folder, for a scheduler that runs."""
    chosen = {
        "address": Address("127.0.0.1", 0),
        "fd": None,
        "unix_socket": str(folder / "http.sock"),
        "scheduler": target,
        "collector": target,
        "public_url": None,
        "insecure": False,
        "aws_auth": None,
        "log_level": "INFO",
        "lifeline_fd": None,
    }
    configured = Settings(**chosen | settings)
    tracer = telemetry.start("cortex-gateway").tracer
    stop = Stop()
    with server.listening(configured) as (sockets, address):
        url = configured.public_url or server.default_public_url(address)
        async with wiring.connected(configured, tracer) as neighbours, asyncio.TaskGroup() as tasks:
            app = wiring.app(neighbours, configured, url, tracer, stop)
            tasks.create_task(server.serve(app, sockets, stop))
            try:
                yield address, stop
            finally:
                stop.at_once = not stop.is_set()  # a graceful end takes a tenth of a second: only where it is tested
                stop.set()
