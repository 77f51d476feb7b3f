"""Workers as pods: a `WorkerDriver` that behaves as Kubernetes does, with real dequeuers beside containers it runs.

A pod belongs to a slot and is made by a controller, not by who asks for a worker: it may call before anybody knows it,
under an id of its own, with a token for the whole job. When it ends, the controller makes another one in its place.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cortex.batch.v1.worker_spec_pb2 import Container, PodRuntime, WorkerSpec
from services.common.exit_codes import HANDED_BACK
from services.common.lifecycle import Stop
from services.common.telemetry import start
from services.dequeuer.external_pod import ExternalPod
from services.dequeuer.worker import Worker
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, End, Health, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit
from tests.integration.dequeuer_kit import PATIENCE_S, Answer, Asked, HttpContainer

RUNNING = ContainerState("api", running=True, ends=0)


@dataclass
class Pod:
    """A dequeuer and its container, which the kubelet starts again when it died."""

    uid: str
    slot: int
    container: HttpContainer
    spec: WorkerSpec
    tell: Callable[[str, Sequence[ContainerState]], None]
    state: ContainerState = RUNNING
    stop: Stop = field(default_factory=Stop)
    dequeuer: "asyncio.Task[int] | None" = None

    async def begin(self) -> None:
        """Start the dequeuer: its container is there already."""
        await self.container.open()
        self.spec.port = self.container.port

        async def work() -> int:
            async with asyncio.TaskGroup() as group:
                return await Worker(self.spec, ExternalPod(self.spec), start("test"), group).run(self.stop)

        self.dequeuer = asyncio.create_task(work())

    def crash(self, **how: object) -> None:
        """The container's process is gone; nobody has told yet."""
        self.container.close()
        told = {"exit_code": 3, "reason": "exited with code 3", "backing_off": True} | how
        self.state = replace(self.state, running=False, ends=self.state.ends + 1, **told)  # type: ignore[arg-type]  # its fields

    def told(self) -> None:
        """The news of what happened arrives."""
        self.tell(self.uid, (self.state,))

    async def restart(self) -> None:
        """The kubelet starts the container again."""
        await self.container.open()
        self.state = replace(self.state, running=True, backing_off=False)


@dataclass
class PodDriver:
    """See the module's text."""

    directory: Path
    sign: Callable[[str], str] = lambda _: ""
    address: str = ""
    answer: Callable[[Asked], Awaitable[Answer]] | None = None
    hands_out: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear: pods are there and call, but nobody is told of them."""
    dequeuers_begin: bool = True
    """False: a container that is started before the dequeuer does not get that far."""
    termination_s: float = 12.0
    outlives_scheduler: bool = True
    pods: dict[str, Pod] = field(default_factory=dict)
    handed_out: set[str] = field(default_factory=set)
    ended: list[tuple[str, int]] = field(default_factory=list)
    """Uids and exit codes."""
    completed: set[int] = field(default_factory=set)
    """Slots whose pods ended well: they get no other one."""
    sizes: list[int] = field(default_factory=list)
    job: JobRecord | None = None
    exits: Callable[[WorkerExit], None] = lambda _: None
    health: Callable[[str, Health], None] = lambda *_: None
    containers: Callable[[str, Sequence[ContainerState]], None] = lambda *_: None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    # The port

    def check(self, config: ApiConfig) -> None:
        """It has everything."""

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        self.job = job
        await self._fill()
        await self.hands_out.wait()
        async with self.changed:
            await self.changed.wait_for(lambda: self._fresh(worker.slot) is not None)
        pod = self._fresh(worker.slot)
        assert pod is not None
        self.handed_out.add(pod.uid)
        await self._notify()
        self._tell_soon(pod)
        return replace(worker, worker_id=pod.uid, detail=f"pod {pod.uid}")

    async def adopt(self, worker: WorkerRecord) -> bool:
        pod = self.pods.get(worker.worker_id)
        if pod is not None:
            self._tell_soon(pod)
        return pod is not None

    async def kill(self, worker: WorkerRecord) -> None:
        await self.delete(worker.worker_id)

    async def resize(self, job: JobRecord, workers: int) -> None:
        self.sizes.append(workers)
        for pod in list(self.pods.values()):
            if pod.slot >= workers:
                pod.stop.set()
        if self.job is not None:
            await self._fill()

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        self.exits = callback

    def on_health(self, callback: Callable[[str, Health], None]) -> None:
        self.health = callback

    def on_containers(self, callback: Callable[[str, Sequence[ContainerState]], None]) -> None:
        self.containers = callback

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        """Containers here do not read it."""

    async def clean_up(self, job_id: str) -> None:
        self.job = None
        for uid in list(self.pods):
            await self.delete(uid)

    # The cluster

    def only(self) -> Pod:
        """The one pod that there is."""
        [pod] = self.pods.values()
        return pod

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until this holds of the pods."""
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(lambda: bool(true()))

    async def until_gone(self, uid: str) -> None:
        """Wait until this pod has ended."""
        await self.until(lambda: uid not in self.pods)

    async def until_handed_out(self, count: int) -> None:
        """Wait until so many pods were handed out, in all."""
        await self.until(lambda: len(self.handed_out) >= count)

    async def delete(self, uid: str, *, reason: str = "deleted", blameless: bool = True) -> None:
        """A pod is gone at once, as with its node."""
        pod = self.pods.get(uid)
        if pod is not None:
            pod.stop.at_once = True
            pod.stop.set()
            pod.container.close()
            await self._gone(pod, WorkerExit(uid, reason, End.KILLED, blameless))

    async def close(self) -> None:
        self.job = None
        for uid in list(self.pods):
            await self.delete(uid)
        for task in self.tasks:
            task.cancel()

    def _fresh(self, slot: int) -> Pod | None:
        return next((pod for pod in self.pods.values() if pod.slot == slot and pod.uid not in self.handed_out), None)

    def _tell_soon(self, pod: Pod) -> None:
        asyncio.get_running_loop().call_soon(pod.told)

    async def _fill(self) -> None:
        for slot in range(self.sizes[-1] if self.sizes and self.job is not None else 0):
            if slot not in self.completed and not any(pod.slot == slot for pod in self.pods.values()):
                await self._make(slot)

    async def _make(self, slot: int) -> None:
        assert self.job is not None
        job_id, uid = self.job.spec.job_id, secrets.token_hex(6)
        token_file = self.directory / f"{job_id}.token"
        token_file.write_text(self.sign(job_id))
        spec = WorkerSpec(
            api_name="hello",
            job_id=job_id,
            worker=slot,
            worker_id=uid,
            scheduler_address=self.address,
            max_concurrency=2,
            containers=[Container(name="api")],
            orphan_seconds=30,
            pod=PodRuntime(token_file=str(token_file), termination_seconds=self.termination_s, stop_seconds=2),
        )
        container = HttpContainer()
        if self.answer is not None:
            container.answer = self.answer
        pod = self.pods[uid] = Pod(uid, slot, container, spec, lambda uid, states: self.containers(uid, states))
        if self.dequeuers_begin:
            await pod.begin()
            task = asyncio.create_task(self._watch(pod))
            self.tasks.add(task)
        await self._notify()

    async def _watch(self, pod: Pod) -> None:
        assert pod.dequeuer is not None
        code = await pod.dequeuer
        if pod.uid in self.pods:
            end = End.SUCCEEDED if code == 0 else End.FAILED
            self.ended.append((pod.uid, code))
            self.completed |= {pod.slot} if code == 0 else set()
            pod.container.close()
            text = f"its dequeuer exited with code {code}"
            await self._gone(pod, WorkerExit(pod.uid, text, end, blameless=code == HANDED_BACK))

    async def _gone(self, pod: Pod, exit_: WorkerExit) -> None:
        if self.pods.pop(pod.uid, None) is None:
            return
        self.exits(exit_)
        await self._fill()
        await self._notify()

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def pods(directory: Path) -> AsyncIterator[PodDriver]:
    """A cluster without pods."""
    driver = PodDriver(directory)
    driver.hands_out.set()
    try:
        yield driver
    finally:
        await driver.close()
