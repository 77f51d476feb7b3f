"""What is told of workers, and what was told already.

A pod is one of ours from when it is handed out; from then on each of its changes is told once, and its end as the last
thing. What a pod is when it is handed out is told by `call_soon`: before, nobody knew its id.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.common.kubernetes import Object
from services.scheduler.adapters.kubernetes_workers import pod_status
from services.scheduler.domain.model.worker import ContainerState, End, Health
from services.scheduler.usecases.ports.workers import WorkerExit

LOOK_SECONDS = 10.0
"""A pod that is pending becomes stalled by itself: all are looked at so often."""
MAX_SKIPPED = 10_000


@dataclass(slots=True)
class _Told:
    pod: Object | None
    """None: not seen yet."""
    health: Health | None = None
    containers: Sequence[ContainerState] = ()


class Tellings:
    """See the module's text."""

    def __init__(self, stalled_seconds: float) -> None:
        self._stalled_seconds = stalled_seconds
        self._workers: dict[str, _Told] = {}
        self._done: dict[str, None] = {}  # uids that will not be handed out any more, oldest first
        self.on_exit: Callable[[WorkerExit], None] = lambda _: None
        self.on_health: Callable[[str, Health], None] = lambda *_: None
        self.on_containers: Callable[[str, Sequence[ContainerState]], None] = lambda *_: None

    def knows(self, uid: str) -> bool:
        """It was handed out, or must not be."""
        return uid in self._workers or uid in self._done

    def follows(self, uid: str) -> bool:
        """It was handed out, and its end was not told yet."""
        return uid in self._workers

    def hand_out(self, uid: str, pod: Object | None) -> None:
        """From now on tell of this pod."""
        self._workers[uid] = _Told(pod)
        asyncio.get_running_loop().call_soon(self._look_again, uid)

    def tell_again(self, uid: str) -> None:
        """Tell of a pod that was handed out as if nothing had been told: maybe nobody knew it then."""
        self.hand_out(uid, self._workers[uid].pod)

    def skip(self, uid: str) -> None:
        """This pod ended before anybody had it."""
        self._done[uid] = None
        if len(self._done) > MAX_SKIPPED:
            del self._done[next(iter(self._done))]

    def waiting(self, worker_id: str, health: Health) -> None:
        """Of a worker that has no pod yet."""
        self.on_health(worker_id, health)

    def missed(self, uids: Collection[str]) -> None:
        """All pods that there are: what was handed out and is not among them is gone."""
        for uid in [uid for uid, told in self._workers.items() if told.pod is None and uid not in uids]:
            self._end(WorkerExit(uid, "its pod is gone", End.KILLED, blameless=True))

    def look(self, pod: Object, gone: bool) -> None:
        """Something about a pod is new."""
        uid = pod["metadata"]["uid"]
        told = self._workers.get(uid)
        if told is None:
            return
        told.pod = pod
        if not gone:
            self._tell(uid, told, pod)
        if (end := pod_status.exit_of(pod, gone=gone)) is not None:
            self._end(end)

    async def run(self) -> None:
        """Notice what changes by time alone."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for uid in list(self._workers):
                self._look_again(uid)

    def _look_again(self, uid: str) -> None:
        told = self._workers.get(uid)
        if told is not None and told.pod is not None:
            self.look(told.pod, False)

    def _tell(self, uid: str, told: _Told, pod: Object) -> None:
        containers = pod_status.container_states(pod)
        if containers != told.containers:
            told.containers = containers
            self.on_containers(uid, containers)
        if pod_status.has_ended(pod):
            return
        health = pod_status.health(pod, datetime.now(UTC), self._stalled_seconds)
        if health != told.health:
            told.health = health
            self.on_health(uid, health)

    def _end(self, end: WorkerExit) -> None:
        del self._workers[end.worker_id]
        self.skip(end.worker_id)
        self.on_exit(end)
