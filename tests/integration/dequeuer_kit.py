"""A dequeuer's surroundings: a scheduler that the test plays over the real wire, and a container that answers HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from cortex.batch.v1 import worker_service_pb2 as pb
from cortex.batch.v1 import worker_service_pb2_grpc
from cortex.batch.v1.worker_spec_pb2 import Container, WorkerSpec
from services.common.lifecycle import Stop
from services.common.names import CHANNEL_OPTIONS
from services.common.telemetry import Telemetry, start
from services.dequeuer.ports import ContainerExit, Pod, PodListener, PodState
from services.dequeuer.worker import Worker

PATIENCE_S = 30.0
NOT_STARTED = PodState(running=False, failed_starts=0, out_of_memory=False, reason="", backing_off=False)
RUNNING = replace(NOT_STARTED, running=True)
END = pb.WorkResponse()


class ScriptedScheduler(worker_service_pb2_grpc.WorkerServiceServicer):
    """A gRPC server on a unix socket that notes what it hears and says what the test says.

    As the real one it leases again what did not arrive because its stream broke under way.
    """

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.records = True
        """Answer results as recorded."""
        self.relets = False
        """Lease again what a worker that is ready gave back, as the real one does."""
        self.answers_heartbeats = True
        self.keeps_replies = False
        self.heartbeat_s = 2.0
        self.refusal: grpc.StatusCode | None = None
        self.dropped: list[int] = []
        """Epochs that the next welcome does not honour."""
        self.hellos: list[pb.Hello] = []
        self.results: list[pb.Result] = []
        self.result_messages = 0
        self.returned: list[pb.ReturnedLease] = []
        self.health: list[pb.Health] = []
        self.credits: list[pb.Credit] = []
        self.completions: list[pb.CompletionResult] = []
        self.goodbyes: list[str] = []
        self.heartbeats = 0
        self._outgoing: asyncio.Queue[pb.WorkResponse] = asyncio.Queue()
        self._leased: dict[int, pb.Lease] = {}  # by epoch: those with neither result nor return
        self._given_back: list[pb.Lease] = []  # until the worker is ready
        self._last_epoch = 1_000_000
        self._changed = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def open(self) -> None:
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def close(self) -> None:
        """Die: streams break."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def Work(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.WorkResponse]:  # noqa: N802  # gRPC's name
        first = await anext(request_iterator)
        self.hellos.append(first.hello)
        self._changed.set()
        if self.refusal is not None:
            await context.abort(self.refusal, "the job is over")
        outgoing = self._outgoing = asyncio.Queue()  # its own: an earlier stream must not take what is for this one
        self.say(
            welcome=pb.Welcome(
                heartbeat_seconds=self.heartbeat_s, dropped_epochs=self.dropped, keep_replies=self.keeps_replies
            )
        )
        remembered = {lease.epoch for lease in first.hello.held}
        self._lease_again([lease for epoch, lease in self._leased.items() if epoch not in remembered])
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            reader.add_done_callback(lambda _: outgoing.put_nowait(END))
            while (message := await outgoing.get()) is not END:
                yield message
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        async for request in requests:
            self.results.extend(request.results)
            self.result_messages += bool(request.results)
            self.returned.extend(request.returned)
            self._note_ends(request)
            if request.HasField("health"):
                self.health.append(request.health)
            if self.relets and self._given_back and self.health and self.health[-1].phase == pb.Health.PHASE_READY:
                given_back, self._given_back = self._given_back, []
                self._lease_again(given_back)
            if request.HasField("credit"):
                self.credits.append(request.credit)
            if request.HasField("completion"):
                self.completions.append(request.completion)
            if request.HasField("goodbye"):
                self.goodbyes.append(request.goodbye.reason)
            if request.results and self.records:
                self.say(recorded_epochs=[result.epoch for result in request.results])
            self.heartbeats += request.HasField("heartbeat")
            if request.HasField("heartbeat") and self.answers_heartbeats:
                self.say(heartbeat=pb.Heartbeat())
            self._changed.set()

    def say(self, **what: Any) -> None:
        self._outgoing.put_nowait(pb.WorkResponse(**what))

    def lease(self, *batches: int, traceparent: str = "") -> None:
        """Lease batches; a batch's first epoch is 1000 more than its index."""
        self._send_leases(
            [
                pb.Lease(batch_index=i, epoch=1000 + i, attempt=1, payload=b"[%d]" % i, traceparent=traceparent)
                for i in batches
            ]
        )

    def _send_leases(self, leases: list[pb.Lease]) -> None:
        self._leased.update({lease.epoch: lease for lease in leases})
        self.say(leases=leases)

    def _lease_again(self, leases: list[pb.Lease]) -> None:
        for lease in leases:
            self._leased.pop(lease.epoch, None)
            self._last_epoch += 1
            lease.epoch = self._last_epoch
        if leases:
            self._send_leases(leases)

    def _note_ends(self, request: pb.WorkRequest) -> None:
        for result in request.results:
            self._leased.pop(result.epoch, None)
        for returned in request.returned:
            lease = self._leased.pop(returned.epoch, None)
            if lease is not None and not returned.lost_in_container:
                self._given_back.append(lease)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something heard makes this true."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def until_ready(self) -> None:
        await self.until(lambda: self.health and self.health[-1].phase == pb.Health.PHASE_READY)

    @property
    def done(self) -> list[int]:
        return sorted(result.batch_index for result in self.results)


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes


Answer = int | None
"""A status, or None to close the connection without an answer."""


class HttpContainer:
    """An HTTP server that notes what it is asked; the test decides how it answers."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Awaitable[Answer]] = _ok
        self.reply: Callable[[Asked], bytes] = lambda _: b"words\n"
        self.ready_status = 200
        self.in_work = 0
        self.most_in_work = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End as a killed process does: every connection with it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    @property
    def batches(self) -> list[Any]:
        """Items that were delivered, in the order of their arrival."""
        return [item for asked in self.asked if asked.path == "/" for item in json.loads(asked.body)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (answered := await self._exchange(reader)) is not None:
                status, body = answered
                writer.write(b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(head[0].split()[1], headers, body)
        if asked.path == "/healthz":
            self._changed.set()
            return self.ready_status, b""
        self.asked.append(asked)
        self.in_work += 1
        self.most_in_work = max(self.most_in_work, self.in_work)
        self._changed.set()
        try:
            status = await self.answer(asked)
            return None if status is None else (status, self.reply(asked))
        finally:
            self.in_work -= 1


async def _ok(asked: Asked) -> Answer:
    return 200


@dataclass
class InProcessPod:
    """A pod whose one container is an `HttpContainer`, and dies when the test says so."""

    container: HttpContainer
    news_s: float = 1.0
    progress: int = 0
    stopped_with: float | None = None
    killed: bool = False
    restarts: list[str] = field(default_factory=list)
    state: PodState = NOT_STARTED
    listener: PodListener | None = None

    async def start(self, listener: PodListener) -> None:
        self.listener = listener
        if self.container.port == 0:
            await self.container.open()
        self.revive()

    def revive(self) -> None:
        assert self.listener is not None
        self.state = RUNNING
        self.listener.container_started("api")
        self.listener.pod_changed(self.state)

    def die(self) -> None:
        assert self.listener is not None
        self.container.close()
        self.state = replace(NOT_STARTED, failed_starts=1, reason="exited with code 3", backing_off=True)
        self.listener.container_exited(ContainerExit("api", 3, None, False, "exited with code 3"))
        self.listener.pod_changed(self.state)

    async def stop(self, grace_seconds: float) -> None:
        self.stopped_with = grace_seconds
        self.container.close()

    def kill(self) -> None:
        self.killed = True

    def restart(self, container: str, reason: str) -> None:
        self.restarts.append(reason)

    def hear(self, states: Iterable[pb.ContainerState]) -> None:
        """It knows first."""

    def made_progress(self) -> None:
        self.progress += 1

    async def exec(self, container: str, command: Sequence[str], timeout: float) -> int:
        return int(command[0])


@dataclass
class Kit:
    """Everything around one dequeuer."""

    scheduler: ScriptedScheduler
    container: HttpContainer
    pod: InProcessPod
    spec: WorkerSpec
    stop: Stop = field(default_factory=Stop)
    worker: "asyncio.Task[int] | None" = None

    def start(self, pod: Pod | None = None, telemetry: Telemetry | None = None) -> None:
        """Start the dequeuer."""

        async def work() -> int:
            tracing = telemetry or start("cortex-dequeuer")
            async with asyncio.TaskGroup() as group:
                return await Worker(self.spec, pod or self.pod, tracing, group).run(self.stop)

        self.worker = asyncio.create_task(work())

    async def ended(self) -> int:
        """The dequeuer's exit code."""
        assert self.worker is not None
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self.worker)


@asynccontextmanager
async def surroundings(directory: Path, concurrency: int = 2, **spec: Any) -> AsyncIterator[Kit]:
    """A scheduler and a container that listen, and a dequeuer yet to be started."""
    scheduler = ScriptedScheduler(directory / "scheduler.sock")
    container = HttpContainer()
    await scheduler.open()
    await container.open()
    settings = WorkerSpec(
        api_name="hello",
        job_id="00ff00ff00ff00ff",
        worker_id="w1",
        token="first",
        scheduler_address=scheduler.address,
        port=container.port,
        max_concurrency=concurrency,
        containers=[Container(name="api")],
        orphan_seconds=30,
    )
    settings.MergeFrom(WorkerSpec(**spec))
    kit = Kit(scheduler, container, InProcessPod(container), settings)
    try:
        yield kit
    finally:
        if kit.worker is not None and not kit.worker.done():
            kit.stop.at_once = True
            kit.stop.set()
            await asyncio.wait((kit.worker,), timeout=PATIENCE_S)
        container.close()
        await scheduler.close()
