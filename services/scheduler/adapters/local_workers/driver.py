"""Starts, watches and ends local workers. A worker is one dequeuer process; the containers are its children.

Nothing here is remembered that cannot be found again. A `WorkerRecord` holds pid, start time and (in `detail`) what the
driver must know after a restart. Everything that belongs to a worker carries its id in its environment, so that what a
crash left without a known pid, or without its dequeuer, is found and ended. When a worker's exit is told, all of its
processes are gone and its ports are free again.
"""

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from google.protobuf import json_format

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.common.engine import JOB_LABEL, WORKER_LABEL
from services.common.errors import Category, CortexError
from services.scheduler.adapters.local_workers import dequeuer, namespaces
from services.scheduler.adapters.local_workers.devices import Devices, Shares
from services.scheduler.adapters.local_workers.directories import WorkerDirectories
from services.scheduler.adapters.local_workers.engines import EngineHost
from services.scheduler.adapters.local_workers.ports import PortChoice, Ports
from services.scheduler.adapters.local_workers.preparation import Prepared, add_variables, prepare
from services.scheduler.adapters.local_workers.processes import Watched, end_marked, start_time
from services.scheduler.adapters.local_workers.settings import LocalWorkerSettings
from services.scheduler.adapters.local_workers.uplink import Uplink
from services.scheduler.domain.api_config import load_api, mentions_port, probe_ports
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit

log = logging.getLogger(__name__)

JOB_SPEC_VARIABLE = "CORTEX_JOB_SPEC"
"""Tells a container that is a plain process where the job's specification is."""

_KILL_SECONDS = 5.0


@dataclass(slots=True)
class _Live:
    """A worker whose process is watched."""

    watched: Watched
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Detail:
    """What the driver writes into a WorkerRecord for its successor."""

    api_name: str
    ports: tuple[int, ...]
    shares: Shares

    def text(self) -> str:
        devices = {"devices": {"key": self.shares.key, "of": self.shares.of}} if self.shares.key else {}
        return json.dumps({"api": self.api_name, "ports": self.ports, **devices})

    @classmethod
    def of(cls, worker: WorkerRecord) -> "_Detail":
        told = json.loads(worker.detail or "{}")
        devices = told.get("devices", {})
        of = {name: tuple(share) for name, share in devices.get("of", {}).items()}
        return cls(told.get("api", ""), tuple(told.get("ports", ())), Shares(devices.get("key", ""), of))


class LocalWorkerDriver:
    """A `WorkerDriver` for this machine. `environ` is what dequeuers and containers inherit."""

    outlives_scheduler = False

    def __init__(self, settings: LocalWorkerSettings, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._directories = WorkerDirectories(settings.data_dir)
        self._ports = Ports()
        self._devices = Devices(settings.machine)
        self._host = EngineHost(settings.engine, str(settings.data_dir), environ) if settings.engine else None
        self._live: dict[str, _Live] = {}
        self._callback: Callable[[WorkerExit], None] | None = None
        self._tell_health: Callable[[str, Health], None] = lambda worker_id, health: None
        self._ends: set[asyncio.Task[None]] = set()

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        """Call back on the event loop once for each worker whose process is gone."""
        self._callback = callback

    def on_health(self, callback: Callable[[str, Health], None]) -> None:
        """Call back while `start` waits; a dequeuer that was started speaks for itself."""
        self._tell_health = callback

    def on_containers(self, callback: Callable[[str, Sequence[ContainerState]], None]) -> None:
        """Nothing to tell: the dequeuer runs the containers."""

    async def resize(self, job: JobRecord, workers: int) -> None:
        """Nothing to do: workers are started and ended one by one."""

    def check(self, config: ApiConfig) -> None:
        """Raises `CortexError` when this machine has not what a worker of this API asks for."""
        self._devices.check(config)

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        """Start a worker's dequeuer, once there are the devices that it is to own.

        Raises `CortexError` when that cannot be done: STORAGE_FULL for a full disk, INVALID for devices that this
        machine has not.
        """
        config = load_api(api)
        try:
            shares = await self._devices.take(worker.worker_id, config, partial(self._queued, worker.worker_id))
            return await self._start(config, api, job, worker, token, shares)
        except BaseException as error:
            self._let_go(worker.worker_id)
            if self._host is not None:
                await self._host.sweep(WORKER_LABEL, worker.worker_id)
            if not isinstance(error, (OSError, ValueError)):
                raise
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            category = Category.STORAGE_FULL if full else Category.INTERNAL
            raise CortexError("worker.cannot_start", str(error), category) from error

    async def _start(
        self, config: ApiConfig, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str, shares: Shares
    ) -> WorkerRecord:
        choice, prefix, infra = await self._network(config, worker.worker_id)
        prepared = prepare(self._settings, self._directories, self._environ, config, api, job, worker, choice, token)
        self._hand_over(config, shares, prepared.spec)
        if infra:
            prepared.spec.local.engine.infra = infra
        with _uplink(prepared.spec) as uplink:
            await asyncio.to_thread(self._make_files, prepared)
            pid = dequeuer.spawn(
                self._settings,
                self._environ,
                prepared.spec,
                self._directories.spec_file(worker.job_id, worker.slot),
                prefix,
            )
            if uplink is not None:
                self._attach(uplink, pid, prepared.spec)
        started = start_time(pid) or 0.0  # no time: it has ended already, which is told at once
        detail = _Detail(api.name, tuple(sorted(choice.on_machine)), shares)
        record = replace(worker, pid=pid, started=started, detail=detail.text())
        self._watch(record, pid, started)
        return record

    async def _network(self, config: ApiConfig, worker_id: str) -> tuple[PortChoice, list[str], str]:
        """Where a worker listens, what to put in front of its dequeuer's command, and docker's name for its network."""
        if self._host is not None:
            await self._host.fetch(
                [container.image for container in config.pod.containers], partial(self._no_image, worker_id)
            )
            prefix, infra = await self._host.enter(worker_id)
            ports = frozenset(probe_ports(config)) | {config.pod.port}
            return PortChoice(config.pod.port, ports, namespace=True), prefix, infra
        choice = await self._ports.choose(
            worker_id, config.pod.port, probe_ports(config), follows=mentions_port(config)
        )
        return choice, await asyncio.to_thread(_namespace, choice.fixed) if choice.namespace else [], ""

    def _hand_over(self, config: ApiConfig, shares: Shares, spec: pb.WorkerSpec) -> None:
        """Tell each container which devices are its own."""
        for container, message in zip(config.pod.containers, spec.containers, strict=True):
            share = shares.of.get(container.name, ())
            if self._host is None:
                add_variables(message, self._devices.variables(container, shares))
            elif shares.key == "gpu":
                message.gpus.extend(share)
            else:
                message.chips.extend(share)

    def _no_image(self, worker_id: str, reason: str) -> None:
        self._tell_health(worker_id, Health(Phase.ERR_IMAGE_PULL, reason))

    def _queued(self, worker_id: str, reason: str) -> None:
        self._tell_health(worker_id, Health(Phase.PENDING, reason, queued=True))

    def _let_go(self, worker_id: str) -> None:
        self._ports.release(worker_id)
        self._devices.release(worker_id)

    async def adopt(self, worker: WorkerRecord) -> bool:
        """Watch a worker that an earlier scheduler started. False when it is gone, with all that belonged to it."""
        if worker.worker_id in self._live:
            return True
        if worker.pid is not None and worker.started is not None:
            try:
                self._watch(worker, worker.pid, worker.started)
            except ProcessLookupError:
                log.info("worker %s (process %d) is gone", worker.worker_id, worker.pid)
            else:
                detail = _Detail.of(worker)
                self._ports.remember(worker.worker_id, frozenset(detail.ports))
                self._devices.remember(worker.worker_id, detail.shares)
                return True
        await self._end_all_of(worker.worker_id)
        return False

    async def kill(self, worker: WorkerRecord) -> None:
        """End a worker's process now, and all that belongs to it. Returns when they are gone."""
        if not await self.adopt(worker):
            return
        live = self._live.get(worker.worker_id)
        if live is None:  # it ended while we looked
            return
        live.watched.kill()
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await live.gone.wait()
        except TimeoutError:
            log.warning("worker %s (process %d) does not end", worker.worker_id, live.watched.pid)

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        """Make this what the job's containers find as /cortex/spec/job.json. Raises `CortexError`."""
        try:
            await asyncio.to_thread(self._directories.write_job_spec, job.spec.job_id, spec_json)
        except OSError as error:
            message = f"the job's specification cannot be written: {error}"
            raise CortexError("worker.cannot_start", message, Category.INTERNAL) from error

    async def clean_up(self, job_id: str) -> None:
        """End what is left of a job's workers and remove their directories. Their output stays."""
        inside = str(self._directories.job(job_id)) + os.sep
        names = (dequeuer.WORKER_SPEC_VARIABLE, JOB_SPEC_VARIABLE)
        await asyncio.to_thread(
            end_marked, lambda environ: any(environ.get(name, "").startswith(inside) for name in names)
        )
        if self._host is not None:
            await self._host.sweep(JOB_LABEL, job_id)
        await asyncio.to_thread(self._directories.remove, job_id)

    async def _end_all_of(self, worker_id: str) -> None:
        found = await asyncio.to_thread(
            end_marked, lambda environ: environ.get(dequeuer.WORKER_ID_VARIABLE) == worker_id
        )
        if found:
            log.info("ended %d processes of worker %s, whose dequeuer is gone", found, worker_id)
        if self._host is not None:
            await self._host.sweep(WORKER_LABEL, worker_id)

    def _make_files(self, prepared: Prepared) -> None:
        spec = prepared.spec
        text = json_format.MessageToJson(spec, indent=None)
        self._directories.make(spec.api_name, spec.job_id, spec.worker, prepared.operator_endpoint, text)

    def _attach(self, uplink: Uplink, pid: int, spec: pb.WorkerSpec) -> None:
        try:
            uplink.attach(pid, {dequeuer.WORKER_ID_VARIABLE: spec.worker_id}, Path(spec.local.directory))
        except OSError as error:  # the dequeuer finds its socket closed, and does without
            log.warning("worker %s gets no outgoing network: %s", spec.worker_id, error)

    def _watch(self, worker: WorkerRecord, pid: int, started: float) -> None:
        watched = Watched(pid, started, lambda status: self._process_ended(worker, status))
        self._live[worker.worker_id] = _Live(watched)

    def _process_ended(self, worker: WorkerRecord, status: int | None) -> None:
        task = asyncio.get_running_loop().create_task(
            self._finish(worker, status), name=f"end of worker {worker.worker_id}"
        )
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _finish(self, worker: WorkerRecord, status: int | None) -> None:
        """The dequeuer is gone: see to the rest, then tell."""
        try:
            await self._end_all_of(worker.worker_id)
        finally:
            live = self._live.pop(worker.worker_id)
            self._let_go(worker.worker_id)
            live.gone.set()
            if self._callback is not None:
                logs = self._directories.logs(_Detail.of(worker).api_name, worker.job_id, worker.slot)
                self._callback(WorkerExit(worker.worker_id, dequeuer.how_it_ended(status, logs)))


@contextmanager
def _uplink(spec: pb.WorkerSpec) -> Iterator[Uplink | None]:
    """An uplink that the worker knows, while it is being started; None where it needs none or can have none."""
    try:
        uplink = Uplink() if spec.local.network_namespace and not spec.local.engine.infra else None
    except FileNotFoundError:
        uplink = None
    if uplink is None:
        yield None
        return
    with closing(uplink):
        spec.local.uplink_fd = uplink.fd
        yield uplink


def _namespace(ports: frozenset[int]) -> list[str]:
    """What to put in front of a dequeuer's command. Raises `CortexError` when there are no network namespaces."""
    try:
        return namespaces.entering()
    except OSError as error:
        numbers = ", ".join(str(port) for port in sorted(ports))
        message = (
            f"port {numbers} is in use by another worker or program of this machine, and the machine gives no network "
            f"namespaces ({error}): let the container listen on $(CORTEX_PORT), use one worker, or free the port"
        )
        raise CortexError("worker.port_in_use", message, Category.CONFLICT) from error
