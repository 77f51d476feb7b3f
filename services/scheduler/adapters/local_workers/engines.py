"""What the driver needs of a container engine: images, a network for a worker, and an end for what a crash left.

Images are fetched here and not by dequeuers: these are in their workers' networks. Whoever waits for an image waits for
one fetching of it; where that fails it is tried again, more and more seldom, as a kubelet does.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.common.engine import (
    SYSTEM_LABEL,
    WORKER_LABEL,
    ContainerPlan,
    Engine,
    container_name,
    last_line,
    unmarked,
)
from services.common.errors import Category, CortexError
from services.scheduler.adapters.local_workers import namespaces

log = logging.getLogger(__name__)

INFRA_IMAGE = "rancher/mirrored-pause:3.10"
"""What holds a worker's network with docker; `CORTEX_INFRA_IMAGE` names another one. It only sleeps."""

_FIRST_PAUSE_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 300.0


@dataclass(slots=True)
class _Fetching:
    """An image that is not there yet."""

    done: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    waiting: list[Callable[[str], None]] = field(default_factory=list)
    trouble: str = ""


class EngineHost:
    """An engine of this machine. `environ` is what its program inherits."""

    def __init__(self, program: str, system: str, environ: Mapping[str, str]) -> None:
        """`system` marks what belongs to this deployment, on a machine that may have several."""
        self.engine = Engine(program)
        self.system = system
        self._environ = unmarked(environ)
        self._infra_image = environ.get("CORTEX_INFRA_IMAGE") or INFRA_IMAGE
        self._fetching: dict[str, _Fetching] = {}

    async def fetch(self, images: Sequence[str], on_trouble: Callable[[str], None]) -> None:
        """Return when all are there. `on_trouble` is told, for people, why one cannot be had so far."""
        for image in dict.fromkeys(images):
            if not await self._has(image):
                await self._wait_for(image, on_trouble)

    async def _wait_for(self, image: str, on_trouble: Callable[[str], None]) -> None:
        fetching = self._fetching.get(image)
        if fetching is None:
            fetching = self._fetching[image] = _Fetching(asyncio.get_running_loop().create_future())
            fetching.task = asyncio.create_task(self._fetch(image, fetching), name=f"image {image}")
        if fetching.trouble:
            on_trouble(fetching.trouble)
        fetching.waiting.append(on_trouble)
        try:
            await asyncio.shield(fetching.done)
        finally:
            fetching.waiting.remove(on_trouble)
            if not fetching.waiting and not fetching.done.done() and fetching.task is not None:
                fetching.task.cancel()  # nobody wants it any more
                self._fetching.pop(image, None)

    async def _fetch(self, image: str, fetching: _Fetching) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            code, _, error = await self._run(self.engine.pull(image))
            if code == 0 or await self._has(image):  # or somebody has made it meanwhile
                break
            fetching.trouble = self._cannot_be_had(image, last_line(error))
            log.warning("%s", fetching.trouble)
            for tell in list(fetching.waiting):
                tell(fetching.trouble)
            await self._pause(image, pause)
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)
        self._fetching.pop(image, None)
        fetching.done.set_result(None)

    def _cannot_be_had(self, image: str, words: str) -> str:
        program = self.engine.program
        return (
            f"image {image} cannot be had: {program}: {words}; mend `image` of the API, or fetch or build it with"
            f" `{program} pull {image}` or `{program} build -t {image}`: it is looked for again and again"
        )

    async def _pause(self, image: str, seconds: float) -> None:
        """A while; less when somebody has made the image meanwhile."""
        for _ in range(int(seconds / _FIRST_PAUSE_SECONDS)):
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)
            if await self._has(image):
                return

    async def _has(self, image: str) -> bool:
        code, _, _ = await self._run(self.engine.has_image(image))
        return code == 0

    async def enter(self, worker_id: str) -> tuple[list[str], str]:
        """What to put in front of a command so that it runs in a new worker's network; and what that is called.

        Raises OSError, `CortexError`.
        """
        if self.engine.program == "podman":
            return await asyncio.to_thread(namespaces.entering), ""
        name = container_name(worker_id, "infra", 0)
        labels = {WORKER_LABEL: worker_id, SYSTEM_LABEL: self.system}
        plan = ContainerPlan(name, self._infra_image, (), "bridge", labels)
        await self.fetch([self._infra_image], log.warning)
        for command in (self.engine.create(plan), self.engine.start_detached(name)):
            code, _, error = await self._run(command)
            if code != 0:
                raise CortexError("worker.no_network", f"{self.engine.program}: {last_line(error)}", Category.INTERNAL)
        _, told, _ = await self._run(self.engine.pid(name))
        nsenter = shutil.which("nsenter")
        if nsenter is None:
            raise OSError("the program `nsenter` is not installed")
        return [nsenter, f"--target={int(told)}", "--net", "--"], name

    async def sweep(self, label: str, value: str) -> None:
        """End and forget all containers with a label. What cannot be done is logged."""
        code, _, error = await self._run(self.engine.sweep(label, value))
        if code != 0:
            log.warning("containers of %s are left: %s: %s", value, self.engine.program, last_line(error))

    async def _run(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run the engine's program: its exit code and what it says. Cancelled, it is ended."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            told, error = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        return process.returncode or 0, told.decode(errors="replace"), error.decode(errors="replace")


def check_user(program: str) -> None:
    """Raises `CortexError` where the user may not do what a worker's network takes."""
    if os.geteuid() != 0:
        raise CortexError(
            "system.needs_root",
            f"workers in containers of {program} need root: a worker's containers share a network namespace that only"
            " root may make and join; run `cortex up` as root, or without --runtime",
            Category.UNSUPPORTED,
        )
