"""Reading what a job's pods wrote, through the API server, for as long as Kubernetes keeps it.

A container's output is read with the time of each line. What is there is merged by time; what comes is passed on as it
comes, with new pods looked for every few seconds. Kubernetes keeps the output of a container's present and last run
on its node, and none of a pod that is gone: then this says so, and where else it may be.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.common.errors import CortexError
from services.common.kubernetes import PODS, Cluster, Object
from services.scheduler.adapters.kubernetes_workers.names import DEQUEUER, selector
from services.scheduler.adapters.kubernetes_workers.pod_status import slot_of
from services.scheduler.usecases.ports.logs import LogEntry

log = logging.getLogger(__name__)

TAIL_LINES = 10_000
"""Of each container's output, so much of what is there; what comes is not limited."""
MOST_STREAMS = 256
"""Containers that are read at once. Of jobs with more, those of the lowest worker numbers are read."""
LOOK_SECONDS = 2.0
SILENCE_SECONDS = 3600.0
_ENTRIES_AT_ONCE = 500
_WAITING = 10_000
_GONE = "the pods of this job are gone, and their output with them: it is where the cluster collects logs, if it does"


@dataclass(frozen=True, slots=True)
class _Source:
    """One container of one pod."""

    pod: str
    slot: int
    container: str


@dataclass(slots=True)
class _Following:
    """The containers of one job that are read, and what they wrote."""

    queue: asyncio.Queue[LogEntry] = field(default_factory=lambda: asyncio.Queue(_WAITING))
    tasks: dict[_Source, asyncio.Task[None]] = field(default_factory=dict)


class PodLogs:
    """A `LogReader` for the pods of one deployment."""

    def __init__(self, cluster: Cluster, namespace: str, deployment: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._deployment = deployment

    async def tail(
        self, api_name: str, job_id: str, follow: bool, finished: asyncio.Event
    ) -> AsyncIterator[list[LogEntry]]:
        """A job's lines, in lists that are never empty. With `follow`, goes on until `finished`."""
        pods = await self._pods(job_id)
        if not pods and (not follow or finished.is_set()):
            yield [LogEntry(time.time_ns(), 0, DEQUEUER, _GONE)]
            return
        if not follow or finished.is_set():
            entries = await self._there(pods)
            for start in range(0, len(entries), _ENTRIES_AT_ONCE):
                yield entries[start : start + _ENTRIES_AT_ONCE]
            return
        async with aclosing(self._follow(job_id, finished)) as lists:
            async for entries in lists:
                yield entries

    async def _pods(self, job_id: str) -> list[Object]:
        found, _ = await self._cluster.list(PODS, self._namespace, selector(self._deployment, job_id))
        return sorted(found, key=slot_of)

    async def _there(self, pods: list[Object]) -> list[LogEntry]:
        few = asyncio.Semaphore(16)

        async def read(source: _Source) -> list[LogEntry]:
            async with few:
                with suppress(CortexError):
                    return [entry async for entry in self._lines(source, follow=False)]
                return []

        each = await asyncio.gather(*(read(source) for source in _sources(pods)))
        return sorted((entry for entries in each for entry in entries), key=lambda entry: entry.time_ns)

    async def _follow(self, job_id: str, finished: asyncio.Event) -> AsyncGenerator[list[LogEntry], None]:
        following = _Following()
        looking = asyncio.create_task(self._look(job_id, following))
        ending = asyncio.create_task(finished.wait())
        try:
            while not (ending.done() and following.queue.empty()):
                if entries := await _next(following.queue, ending):
                    yield entries
        finally:
            for task in (looking, ending, *following.tasks.values()):
                task.cancel()

    async def _look(self, job_id: str, following: _Following) -> None:
        """Read every container of every pod, those too that come later."""
        while True:
            try:
                for source in _sources(await self._pods(job_id)):
                    if source not in following.tasks:
                        following.tasks[source] = asyncio.create_task(self._pump(source, following.queue))
            except CortexError as error:
                log.warning("the logs of job %s cannot be read just now: %s", job_id, error.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def _pump(self, source: _Source, queue: asyncio.Queue[LogEntry]) -> None:
        """Read a container through its restarts and through broken connections, each line once."""
        newest = 0
        while True:
            with suppress(CortexError):  # not started yet, or the API server is away
                async with aclosing(self._lines(source, follow=True, since_ns=newest)) as entries:
                    async for entry in entries:
                        if entry.time_ns > newest:
                            newest = entry.time_ns
                            await queue.put(entry)
            await asyncio.sleep(LOOK_SECONDS)

    async def _lines(self, source: _Source, *, follow: bool, since_ns: int = 0) -> AsyncGenerator[LogEntry, None]:
        """What a container writes, from a time on. Raises `CortexError` when there is nothing to read."""
        query = {"container": source.container, "timestamps": "true", "follow": "true" if follow else ""}
        if since_ns:
            query["sinceTime"] = datetime.fromtimestamp(since_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            query["tailLines"] = str(TAIL_LINES)
        path = PODS.path(self._namespace, source.pod, "log")
        rest = b""
        async with self._cluster.stream(path, query, SILENCE_SECONDS if follow else 15.0) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _entry(source, line)
        if rest:
            yield _entry(source, rest)


def _sources(pods: list[Object]) -> list[_Source]:
    found: list[_Source] = []
    for pod in pods:
        spec = pod["spec"]
        began = {
            each["name"]
            for kind in ("initContainerStatuses", "containerStatuses")
            for each in pod.get("status", {}).get(kind, ())
            if "waiting" not in each.get("state", {}) or each.get("lastState")
        }
        names = [each["name"] for each in (*spec.get("initContainers", ()), *spec["containers"])]
        found += [_Source(pod["metadata"]["name"], slot_of(pod), name) for name in names if name in began]
    return found[:MOST_STREAMS]


def _entry(source: _Source, line: bytes) -> LogEntry:
    moment, _, message = line.decode(errors="replace").partition(" ")
    return LogEntry(_nanoseconds(moment), source.slot, source.container, message)


def _nanoseconds(text: str) -> int:
    """A time with up to nine digits behind the second."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
        return seconds * 10**9 + int(f"{fraction[:9]:0<9}")
    except ValueError:
        return time.time_ns()


async def _next(queue: asyncio.Queue[LogEntry], ending: "asyncio.Task[bool]") -> list[LogEntry]:
    """What waits, or comes next; nothing when the end comes first."""
    if queue.empty():
        getting = asyncio.ensure_future(queue.get())
        await asyncio.wait((getting, ending), return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            return []
        entries = [getting.result()]
    else:
        entries = [queue.get_nowait()]
    while not queue.empty() and len(entries) < _ENTRIES_AT_ONCE:
        entries.append(queue.get_nowait())
    return entries
