"""Local workers as the scheduler starts them: a driver with a data directory of its own, APIs and jobs to run."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from services.scheduler.adapters.local_workers import LocalWorkerDriver, LocalWorkerSettings
from services.scheduler.adapters.local_workers.dequeuer import WORKER_ID_VARIABLE
from services.scheduler.adapters.log_files import LogFiles
from services.scheduler.domain.api_config import parse_api_file
from services.scheduler.domain.api_config.spec import to_version
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.model.job import JobRecord, JobSpec, JobState, Tally
from services.scheduler.domain.model.worker import WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit

WAIT_SECONDS = 30.0
"""For things that take half a second, on a machine that does much else."""


def settings(data_dir: Path, **more: Any) -> LocalWorkerSettings:
    """No scheduler is there: the dequeuers keep looking for one and run their containers meanwhile."""
    chosen: dict[str, Any] = {
        "data_dir": data_dir,
        "scheduler_address": f"unix:{data_dir}/none.sock",
        "public_url": "http://127.0.0.1:8888",
        "http_socket": None,
        "collector_socket": None,
        "collector_port": 0,
        "working_dir": data_dir,
        "lifeline_fd": None,
        "stop_grace_seconds": 1.0,
        **more,
    }
    return LocalWorkerSettings(**chosen)


def api(*containers: Mapping[str, Any], port: int = 8080, file_name: str = "cortex.yaml") -> ApiVersion:
    """A deployed API."""
    pod = {"port": port, "containers": [{"image": "unused", **container} for container in containers]}
    text = yaml.safe_dump([{"name": "hello", "kind": "BatchAPI", "pod": pod}])
    (config,) = parse_api_file(file_name, text.encode())
    return to_version(config, "deployment", 1, 2)


def script(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return {"name": name, "command": ["/bin/sh", "-c", text], **more}


def job(job_id: str = "00000000000000aa") -> JobRecord:
    """A job of that API."""
    spec = JobSpec(job_id, "hello", "v1", 2, 1, "", None, None, None, 1, "")
    return JobRecord(spec, JobState(), Tally(), Cursor(), 0)


class Workers:
    """A driver, and an end for everything that it started: `async with Workers(tmp_path) as workers`."""

    def __init__(self, data_dir: Path, **more: Any) -> None:
        self.settings = settings(data_dir, **more)
        self.data_dir = data_dir
        self.driver = LocalWorkerDriver(self.settings)
        self.exits: list[WorkerExit] = []
        self.started: list[WorkerRecord] = []
        self._news = asyncio.Event()
        self.driver.on_exit(self.exited)

    async def __aenter__(self) -> "Workers":
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.started:
            await self.driver.kill(worker)

    async def start(self, version: ApiVersion, slot: int = 0, of: JobRecord | None = None) -> WorkerRecord:
        """Start a worker as the scheduler does: the job's document first."""
        of = of or job()
        worker_id = f"{os.getpid():x}-{self.data_dir.name[-24:]}-{slot}-{len(self.started)}"
        worker = WorkerRecord(worker_id, of.spec.job_id, slot, None, None)
        await self.driver.write_job_spec(of, '{"job_id": "' + of.spec.job_id + '"}')
        record = await self.driver.start(version, of, worker, "token")
        self.started.append(record)
        return record

    async def exit_of(self, worker: WorkerRecord) -> WorkerExit:
        """The one exit that is told of a worker."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := [each for each in self.exits if each.worker_id == worker.worker_id]):
                self._news.clear()
                await self._news.wait()
        (only,) = found
        return only

    async def says(self, container: str, text: str, worker: int = 0, of: JobRecord | None = None) -> str:
        """Wait until a container has written a line that holds a text; the line."""
        logs = LogFiles(self.data_dir / "logs").tail("hello", (of or job()).spec.job_id, True, asyncio.Event())
        async with asyncio.timeout(WAIT_SECONDS):
            async for entries in logs:
                for entry in entries:
                    if (entry.container, entry.worker) == (container, worker) and text in entry.message:
                        return entry.message
        raise AssertionError("unreachable: the log is followed without an end")

    def exited(self, exit_: WorkerExit) -> None:
        """Hear of an exit."""
        self.exits.append(exit_)
        self._news.set()


def processes_of(worker: WorkerRecord) -> set[int]:
    """Every live process of a worker."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get(WORKER_ID_VARIABLE) == worker.worker_id
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def without_pid(worker: WorkerRecord) -> WorkerRecord:
    """The record as it was before the process was known."""
    return replace(worker, pid=None, started=None, detail="")
