"""Sees to what cannot be done at once, and to what nobody else would.

- Jobs whose job is over, or unknown to the ledger, are removed: at the start and every minute.
- A pod that was to be ended while the API server was away is ended when it is back.
- A pod that its node does not end (the node is lost) is declared lost, so that it is replaced.
- A Job that somebody else has resized gets its size back: pods that nobody hands out would run for nothing. One that
  has lost the labels by which it is found gets these back.
- What pods mount is written again where they wait long for it: somebody may have deleted it.
- The token of every job at work is renewed long before it ends, for dequeuers that have to connect anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from services.common.errors import CortexError
from services.common.kubernetes import Object
from services.scheduler.adapters.kubernetes_workers import job_status, pod_status
from services.scheduler.adapters.kubernetes_workers.job_objects import JobObjects
from services.scheduler.adapters.kubernetes_workers.manifests import Work
from services.scheduler.adapters.kubernetes_workers.observed import Observed, job_id_of

log = logging.getLogger(__name__)

ROUND_SECONDS = 5.0
ORPHANS_SECONDS = 60.0
LOST_SECONDS = 20.0
"""A pod that is there so long after its grace period has run out is on a node that does not end it."""
TOKEN_SECONDS = 1200.0
"""A third of a token's life."""
MOUNT_SECONDS = 30.0
"""A pod that has a node and has started nothing for so long may wait for what it mounts (or for its images)."""
AT_ONCE = 8
"""Requests under way at once."""


@dataclass(slots=True)
class Made:
    """A Job that had all that it needs."""

    work: Work
    job: Object
    """As it was then."""


class Caretaker:
    """See the module's text."""

    def __init__(
        self, observed: Observed, objects: JobObjects, sizes: Mapping[str, int], made: Mapping[str, Made]
    ) -> None:
        """`sizes`: what jobs at work are to have now; `made`: their Jobs. Both by job id."""
        self._sizes = sizes
        self._made = made
        self._observed = observed
        self._objects = objects
        self._doomed: dict[str, tuple[str, str, int]] = {}  # by uid: job id, pod's name, grace
        self._renewed: dict[str, float] = {}  # by job id: when its token was
        self._few = asyncio.Semaphore(AT_ONCE)

    # What is asked for

    def equipped(self, job_id: str) -> None:
        """A job has a fresh token."""
        self._renewed[job_id] = asyncio.get_running_loop().time()

    def follow(self, job_id: str) -> None:
        """A job is at work. One that was equipped by an earlier leader gets a fresh token soon."""
        self._renewed.setdefault(job_id, -inf)

    async def end(self, job_id: str, uid: str, name: str, grace_seconds: int) -> None:
        """Have a pod deleted, now or as soon as that can be done."""
        self._doomed[uid] = (job_id, name, grace_seconds)
        await self._end(uid)

    async def remove(self, job_id: str) -> None:
        """Have a job's Job deleted, now or as soon as that can be done."""
        self._renewed.pop(job_id, None)
        for uid in [uid for uid, (of, _, _) in self._doomed.items() if of == job_id]:
            del self._doomed[uid]
        job, made = self._observed.job(job_id), self._made.get(job_id)
        if job is None and made is not None:
            job = made.job  # it may be there without its labels
        if job is not None:
            await self._remove(job)

    # What is done by itself

    async def run(self, is_over: Callable[[str], Awaitable[bool]]) -> None:
        """Go round, for ever. `is_over`: whether the ledger knows no such job, or knows that it is over."""
        next_orphans = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._restore_labels()
                if loop.time() >= next_orphans and self._observed.is_complete:
                    next_orphans = loop.time() + ORPHANS_SECONDS
                    await self._remove_orphans(is_over)
                for uid in list(self._doomed):
                    await self._end(uid)
                await self._declare_lost()
                await self._restore_sizes()
                await self._equip_again(loop.time())
                await self._renew_tokens(loop.time())
            except CortexError as error:
                log.warning("caring for the workers failed, and is tried again: %s", error.message)
            await asyncio.sleep(ROUND_SECONDS)

    async def _remove_orphans(self, is_over: Callable[[str], Awaitable[bool]]) -> None:
        for job in self._observed.jobs():
            job_id = job_id_of(job)
            if "deletionTimestamp" not in job["metadata"] and await is_over(job_id):
                log.info("removing what is left of job %s, which is over", job_id)
                await self._remove(job)

    async def _remove(self, job: Object) -> None:
        try:
            await self._objects.remove(job)
        except CortexError as error:
            name = job["metadata"]["name"]
            log.warning("the Job %s is removed later: %s", name, error.message)

    async def _end(self, uid: str) -> None:
        pod = self._observed.pod(uid)
        if self._observed.is_complete and (pod is None or pod_status.has_ended(pod)):
            self._doomed.pop(uid, None)
        if uid not in self._doomed:  # or somebody else has seen to it while others were ended
            return
        job_id, name, grace_seconds = self._doomed[uid]
        try:
            async with self._few:
                await self._objects.end_pod(self._observed.job(job_id), name, uid, grace_seconds)
        except CortexError as error:
            log.warning("the pod %s is ended later: %s", name, error.message)
        else:
            self._doomed.pop(uid, None)

    async def _declare_lost(self) -> None:
        now = datetime.now(UTC)
        for pod in self._observed.pods():
            late = pod_status.seconds_since(pod["metadata"].get("deletionTimestamp"), now)
            if late > LOST_SECONDS and not pod_status.has_ended(pod):
                log.warning("the pod %s does not end on its node; it is given up", pod["metadata"]["name"])
                await self._objects.declare_lost(pod)

    async def _restore_labels(self) -> None:
        for job_id, made in list(self._made.items()):
            if self._observed.job(job_id) is None and (job := await self._objects.restore_labels(made.job)) is not None:
                self._observed.note(job)

    async def _restore_sizes(self) -> None:
        for job_id, size in list(self._sizes.items()):
            job = self._observed.job(job_id)
            if job is None or "deletionTimestamp" in job["metadata"] or job_status.is_over(job):
                continue
            if (job["spec"].get("parallelism"), job["spec"].get("completions")) != (size, size):
                log.warning("the Job %s was resized by somebody else; it gets its size back", job["metadata"]["name"])
                self._observed.note(await self._objects.resize(await self._objects.own(job), size))

    async def _equip_again(self, now: float) -> None:
        today = datetime.now(UTC)
        waiting = {
            job_id_of(pod) for pod in self._observed.pods() if pod_status.has_begun_nothing(pod, MOUNT_SECONDS, today)
        }
        for job_id in waiting & self._made.keys():
            job = self._observed.job(job_id)
            if job is not None and now - self._renewed.get(job_id, -inf) >= MOUNT_SECONDS:
                await self._objects.equip(self._made[job_id].work, job)
                self.equipped(job_id)

    async def _renew_tokens(self, now: float) -> None:
        for job_id, since in list(self._renewed.items()):
            if now - since >= TOKEN_SECONDS and (job := self._observed.job(job_id)) is not None:
                await self._objects.renew_token(job)
                self._renewed[job_id] = now
