"""A real scheduler (SQLite ledger, gRPC server) whose workers are scripted by the test, over the real wire."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc, resources_pb2, worker_service_pb2, worker_service_pb2_grpc
from services.common.lifecycle import Stop
from services.common.telemetry import start
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.aws.sqs import SqsQueues
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, Health, WorkerRecord
from services.scheduler.settings import Settings
from services.scheduler.usecases.ports.dead_letters import DeadLetterQueues
from services.scheduler.usecases.ports.objects import ObjectStore
from services.scheduler.usecases.ports.workers import WorkerDriver, WorkerExit
from services.scheduler.wiring import Observed, Scheduler

if TYPE_CHECKING:
    from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceAsyncStub  # exists in the stubs alone

API_FILE = b"""
- name: hello
  kind: BatchAPI
  pod:
    max_concurrency: 2
    containers:
      - name: api
        image: none
        command: [serve]
"""

Job = resources_pb2.Job
SUCCEEDED = worker_service_pb2.Result.OUTCOME_SUCCEEDED
FAILED = worker_service_pb2.Result.OUTCOME_FAILED


@dataclass
class ScriptedDriver:
    """Starts no process: it notes what was asked for, and the test plays the workers."""

    started: "asyncio.Queue[tuple[WorkerRecord, str]]" = field(default_factory=asyncio.Queue)
    killed: list[str] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    job_specs: list[str] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    callback: Callable[[WorkerExit], None] = lambda _: None
    outlives_scheduler = False

    def check(self, config: ApiConfig) -> None:
        """Takes any."""

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        self.alive.add(worker.worker_id)
        started = replace(worker, pid=os.getpid(), started=1.0)
        self.started.put_nowait((started, token))
        return started

    async def adopt(self, worker: WorkerRecord) -> bool:
        return worker.worker_id in self.alive

    async def kill(self, worker: WorkerRecord) -> None:
        self.killed.append(worker.worker_id)
        self.alive.discard(worker.worker_id)

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        self.callback = callback

    def on_health(self, callback: Callable[[str, Health], None]) -> None:
        """Its workers speak for themselves."""

    def on_containers(self, callback: Callable[[str, Sequence[ContainerState]], None]) -> None:
        """Its workers run their containers."""

    async def resize(self, job: JobRecord, workers: int) -> None:
        self.sizes.append(workers)

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        self.job_specs.append(spec_json)

    async def clean_up(self, job_id: str) -> None:
        self.cleaned.append(job_id)

    def die(self, worker_id: str) -> None:
        """The worker's process is gone."""
        self.alive.discard(worker_id)
        self.callback(WorkerExit(worker_id, "killed by signal 9"))


class ScriptedWorker:
    """A dequeuer played by the test, over a real stream."""

    def __init__(self, record: WorkerRecord, token: str, address: str) -> None:
        self.id = record.worker_id
        self.slot = record.slot
        self.job_id = record.job_id
        self.token = token
        self.leases: dict[int, worker_service_pb2.Lease] = {}  # by batch
        self.recorded: set[int] = set()
        self.revoked: set[int] = set()
        self.dropped: set[int] = set()
        self.complete: asyncio.Event = asyncio.Event()
        self.completions_asked = 0
        self.shutdown: asyncio.Event = asyncio.Event()
        self.keeps_replies = False
        self.welcome: asyncio.Event = asyncio.Event()
        """The stream is open, or it has ended."""
        self.ended: asyncio.Event = asyncio.Event()
        self.error: grpc.aio.AioRpcError | None = None
        self._address = address
        self._changed = asyncio.Condition()

    async def open(
        self,
        *,
        held: Iterable[worker_service_pb2.Lease] = (),
        results: Iterable[worker_service_pb2.Result] = (),
        completing: bool = False,
        credit: int = 4,
        ready: bool = True,
    ) -> None:
        """Open the stream, say hello, be ready, and keep reading in the background."""
        self.welcome.clear()
        self.ended.clear()
        self.error = None
        self._channel = grpc.aio.insecure_channel(self._address)
        self._call = worker_service_pb2_grpc.WorkerServiceStub(self._channel).Work()
        hello = worker_service_pb2.WorkRequest(results=list(results))
        hello.hello.token = self.token
        hello.hello.worker_id = self.id
        hello.hello.completing = completing
        for lease in held:
            hello.hello.held.add(batch_index=lease.batch_index, epoch=lease.epoch, attempt=lease.attempt)
        hello.credit.batches = credit
        hello.credit.bytes = 8 << 20
        if ready:
            hello.health.phase = worker_service_pb2.Health.PHASE_READY
        await self._call.write(hello)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self._call:
                async with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            pass
        self.welcome.set()
        self.ended.set()

    def _take(self, message: worker_service_pb2.WorkResponse) -> None:
        self.dropped.update(message.welcome.dropped_epochs)
        self.leases.update({lease.batch_index: lease for lease in message.leases})
        self.recorded.update(message.recorded_epochs)
        self.revoked.update(message.revoked_epochs)
        if message.HasField("welcome"):
            self.keeps_replies = message.welcome.keep_replies
            self.welcome.set()
        if message.HasField("job_complete"):
            self.completions_asked += 1
            self.complete.set()
        if message.HasField("shutdown"):
            self.shutdown.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)

    async def lease(self, count: int) -> list[worker_service_pb2.Lease]:
        """Wait until so many batches are held; give them in order."""
        await self.until(lambda: len(self.leases) >= count)
        return [self.leases[index] for index in sorted(self.leases)]

    def result(
        self, lease: worker_service_pb2.Lease, *, ok: bool = True, reply: bytes = b""
    ) -> worker_service_pb2.Result:
        """How an attempt ended."""
        return worker_service_pb2.Result(
            batch_index=lease.batch_index,
            epoch=lease.epoch,
            outcome=SUCCEEDED if ok else FAILED,
            http_status=200 if ok else 500,
            duration_seconds=0.01,
            error="" if ok else "the container answered 500",
            reply=reply,
        )

    async def send(self, *results: worker_service_pb2.Result) -> None:
        """Report results and wait until they are recorded."""
        for result in results:  # before anything is sent: the same batch may be leased again at once
            self.leases.pop(result.batch_index, None)
        await self._call.write(worker_service_pb2.WorkRequest(results=results))
        await self.until(lambda: all(result.epoch in self.recorded for result in results))

    async def give_back(self, lease: worker_service_pb2.Lease, *, lost: bool) -> None:
        """Give a batch back; `lost`: the container died with it."""
        self.leases.pop(lease.batch_index, None)
        message = worker_service_pb2.WorkRequest()
        message.returned.add(batch_index=lease.batch_index, epoch=lease.epoch, lost_in_container=lost)
        await self.say(message)

    async def say(self, message: worker_service_pb2.WorkRequest) -> None:
        await self._call.write(message)

    async def work_off(self, seen: dict[int, bytes] | None = None) -> None:
        """Succeed with everything until told that the job is complete."""
        while not self.complete.is_set():
            await self.until(lambda: bool(self.leases) or self.complete.is_set())
            leases = list(self.leases.values())
            if seen is not None:
                seen.update({lease.batch_index: lease.payload for lease in leases})
            if leases:
                await self.send(*(self.result(lease) for lease in leases))

    async def answer_completion(self, status: int = 200, error: str = "") -> None:
        async with asyncio.timeout(10):
            await self.complete.wait()
        message = worker_service_pb2.WorkRequest()
        message.completion.http_status = status
        message.completion.error = error
        await self.say(message)

    async def close(self) -> None:
        """Break the stream."""
        self._call.cancel()
        await self.ended.wait()
        await self._channel.close()


@dataclass
class Kit:
    """A running scheduler and a client of it."""

    driver: ScriptedDriver
    batch: "BatchServiceAsyncStub"
    channel: grpc.aio.Channel
    address: str
    ledger: SqlLedger

    async def deploy(self) -> None:
        await self.batch.DeployApis(pb.DeployApisRequest(file_name="hello.yaml", config=API_FILE))

    async def submit(self, items: str, batch_size: int = 1, workers: int = 1, **fields: Any) -> str:
        request = pb.SubmitJobRequest(api_name="hello", workers=workers, **fields)
        request.item_list.items_json = items
        request.item_list.batch_size = batch_size
        return (await self.batch.SubmitJob(request)).job.job_id

    async def worker(self) -> ScriptedWorker:
        """The next worker that the scheduler starts."""
        async with asyncio.timeout(10):
            record, token = await self.driver.started.get()
        return ScriptedWorker(record, token, self.address)

    async def job(self, job_id: str) -> resources_pb2.Job:
        return (await self.batch.GetJob(pb.GetJobRequest(api_name="hello", job_id=job_id))).job

    async def until(self, job_id: str, condition: Callable[[resources_pb2.Job], bool]) -> resources_pb2.Job:
        """Watch the job until the condition holds."""
        async with asyncio.timeout(15):
            async for message in self.batch.WatchJob(pb.WatchJobRequest(api_name="hello", job_id=job_id)):
                if condition(message.job):
                    return message.job
        raise AssertionError(f"the job ended otherwise: {message.job}")


def settings(directory: Path, *, grace_seconds: float = 30.0, deadline_seconds: float = 60.0) -> Settings:
    """Of a scheduler that keeps everything in this directory."""
    return Settings.from_environment(
        {
            "CORTEX_DATA_DIR": str(directory),
            "CORTEX_GRPC_ADDRESS": "127.0.0.1:0",
            "CORTEX_SCHEDULER_SOCKET": str(directory / "s"),
            "CORTEX_RECONNECT_GRACE": str(grace_seconds),
            "CORTEX_STARTUP_DEADLINE": str(deadline_seconds),
        }
    )


@asynccontextmanager
async def scheduler(
    directory: Path,
    driver: WorkerDriver,
    *,
    grace_seconds: float = 30.0,
    deadline_seconds: float = 60.0,
    objects: ObjectStore | None = None,
    queues: DeadLetterQueues | None = None,
) -> AsyncIterator[Kit]:
    """Run a scheduler; leaving the context is a crash as far as its memory goes."""
    socket = directory / "s"
    chosen = settings(directory, grace_seconds=grace_seconds, deadline_seconds=deadline_seconds)
    ledger = await SqlLedger.open(SqliteEngine(directory / "ledger.db"))
    aws = AwsSession(os.environ)
    queues, objects = queues or SqsQueues(aws), objects or ObjectStores(aws, ())
    built = await Scheduler.build(chosen, ledger, driver, queues, Observed(start("test")), objects)
    stop = Stop()
    stop.at_once = True
    running = asyncio.create_task(built.run(stop))
    channel = grpc.aio.insecure_channel(f"unix:{socket}")
    try:
        async with asyncio.timeout(10):
            await channel.channel_ready()
        batch = batch_service_pb2_grpc.BatchServiceStub(channel)
        yield Kit(cast("ScriptedDriver", driver), batch, channel, f"unix:{socket}", ledger)
    finally:
        await channel.close()
        stop.set()
        await running
        await aws.close()
        await ledger.close()
