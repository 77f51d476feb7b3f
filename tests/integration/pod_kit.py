"""What tests of containers as processes need: a specification, a listener that can be awaited, and what was kept."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cortex.batch.v1.worker_spec_pb2 import Container, LocalRuntime, WorkerSpec
from services.dequeuer.pod.local import LocalPod
from services.dequeuer.ports import ContainerExit, PodState

WAIT_SECONDS = 20.0
"""For things that take milliseconds, on a machine that does much else."""


class Recorder:
    """A PodListener that remembers everything and can be waited on."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.exits: list[ContainerExit] = []
        self.states: list[PodState] = []
        self._news = asyncio.Event()

    def container_started(self, name: str) -> None:
        self.started.append(name)
        self._news.set()

    def container_exited(self, exit: ContainerExit) -> None:  # noqa: A002  # the port's name
        self.exits.append(exit)
        self._news.set()

    def pod_changed(self, state: PodState) -> None:
        self.states.append(state)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def exit_of(self, container: str) -> ContainerExit:
        await self.until(lambda: any(each.container == container for each in self.exits))
        return next(each for each in self.exits if each.container == container)


def shell(name: str, script: str, **more: Any) -> Container:
    """A container that runs a shell script. `$(NAME)` and `$$` in it are Kubernetes' before they are the shell's."""
    return Container(name=name, command=["/bin/sh", "-c", script], **more)


def make_spec(directory: Path, *containers: Container, worker_id: str = "", **local: Any) -> WorkerSpec:
    """A worker in a directory of its own, with an empty job specification."""
    for name in ("spec", "client", "mnt", "work"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "spec" / "job.json").write_text('{"job_id": "j1"}')
    runtime = {
        "directory": str(directory),
        "log_directory": str(directory / "logs"),
        "mount_namespace": True,
        "stop_grace_seconds": 5.0,
        "working_directory": str(directory / "work"),
        **local,
    }
    return WorkerSpec(
        api_name="hello",
        api_id="v1",
        job_id="j1",
        worker=3,
        worker_id=worker_id or f"worker-{os.getpid()}-{directory.name}",
        port=4321,
        containers=containers,
        local=LocalRuntime(**runtime),
    )


def entries(spec: WorkerSpec, container: str) -> list[dict[str, Any]]:
    """What is kept of a container's output."""
    path = Path(spec.local.log_directory, f"{container}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(spec: WorkerSpec, container: str) -> list[str]:
    """Its lines, without ours."""
    found = [str(entry["message"]) for entry in entries(spec, container)]
    return [message for message in found if not message.startswith("cortex: ")]


class Fifo:
    """A named pipe through which a container tells a test that it has come somewhere: `echo word > PATH`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path

    async def read(self) -> str:
        async with asyncio.timeout(WAIT_SECONDS):
            return (await asyncio.to_thread(self.path.read_text)).strip()

    async def write(self, text: str) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.to_thread(self.path.write_text, text)


class Running:
    """A pod that is stopped in the end, whatever happens: `async with Running(spec) as pod`."""

    def __init__(self, spec: WorkerSpec, environ: Mapping[str, str] = os.environ) -> None:
        self.pod = LocalPod(spec, environ)
        self.seen = Recorder()

    async def __aenter__(self) -> "Running":
        await self.pod.start(self.seen)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pod.stop(0.0)
