"""The Jobs and pods of this deployment, as they were last seen: one list and watch of each, for all jobs.

While the API server is away nothing changes here: a watch that is down is no news, and nobody is gone because of it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from services.common.kubernetes import JOBS, PODS, Change, Cluster, Object, Resource, follow
from services.scheduler.adapters.kubernetes_workers.names import JOB_ID_LABEL, selector
from services.scheduler.adapters.kubernetes_workers.pod_status import slot_of

MAX_GONE = 1000
"""Uids of Jobs that were removed and are remembered: an answer about one may come later than the news of its end."""


class OnPods(Protocol):
    """Called whenever all pods were listed."""

    def __call__(self, pods: Sequence[Object], *, first: bool) -> None:
        """`pods` are all that there are; `first`: nothing was seen before."""


class Observed:
    """See the module's text."""

    def __init__(self, cluster: Cluster, namespace: str, deployment: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._labels = selector(deployment)
        self._jobs: dict[str, Object] = {}  # by uid, as the next
        self._gone_jobs: dict[str, None] = {}  # uids, oldest first
        self._pods: dict[str, Object] = {}
        self._of_slot: dict[tuple[str, int], set[str]] = {}
        self._news: dict[str, dict[int, asyncio.Event]] = {}  # by job id and slot
        self._listed = {JOBS: asyncio.Event(), PODS: asyncio.Event()}
        self.on_pod: Callable[[Object, bool], None] = lambda *_: None
        """Called with everything that is new about a pod, and whether it is gone."""
        self.on_pods: OnPods = lambda _, *, first: None

    async def run(self) -> None:
        """Look on, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(JOBS, self._jobs, self._job_changed))
            group.create_task(self._follow(PODS, self._pods, self._pod_changed))

    async def complete(self) -> None:
        """Wait until all that there is was seen once."""
        for listed in self._listed.values():
            await listed.wait()

    @property
    def is_complete(self) -> bool:
        """All that there is was seen once: what is not here was not there."""
        return all(listed.is_set() for listed in self._listed.values())

    # Looking

    def job(self, job_id: str) -> Object | None:
        """A job's Job: where an old one is still on its way out, the newest."""
        found = [job for job in self._jobs.values() if job_id_of(job) == job_id]
        return max(found, key=_version, default=None)

    def jobs(self) -> list[Object]:
        """All Jobs."""
        return list(self._jobs.values())

    def pod(self, uid: str) -> Object | None:
        """One pod."""
        return self._pods.get(uid)

    def pods(self) -> list[Object]:
        """All pods."""
        return list(self._pods.values())

    def pods_of(self, job_id: str, slot: int) -> Iterable[Object]:
        """The pods that a worker of a job is, or was."""
        return [self._pods[uid] for uid in self._of_slot.get((job_id, slot), ())]

    def news(self, job_id: str, slot: int) -> asyncio.Event:
        """Set as soon as something about a job's Job, or its pods in this slot, is new from now on."""
        return self._news.setdefault(job_id, {}).setdefault(slot, asyncio.Event())

    def note(self, job: Object) -> None:
        """A Job that we have just made or changed: known before the watch tells of it, unless it is gone by now."""
        if job["metadata"]["uid"] in self._gone_jobs:
            return
        known = self._jobs.get(job["metadata"]["uid"])
        if known is None or _version(job) > _version(known):
            self._jobs[job["metadata"]["uid"]] = job

    # Following

    async def _follow(
        self, resource: Resource, known: dict[str, Object], changed: Callable[[Object, bool], None]
    ) -> None:
        async with aclosing(follow(self._cluster, resource, self._namespace, self._labels)) as news:
            async for each in news:
                if isinstance(each, Change):
                    changed(each.object, each.deleted)
                else:
                    self._listed_anew(resource, known, each.objects, changed)

    def _listed_anew(
        self,
        resource: Resource,
        known: Mapping[str, Object],
        objects: Sequence[Object],
        changed: Callable[[Object, bool], None],
    ) -> None:
        there = {found["metadata"]["uid"] for found in objects}
        for lost in [found for uid, found in known.items() if uid not in there]:
            changed(lost, True)
        for found in objects:
            changed(found, False)
        first = not self._listed[resource].is_set()
        self._listed[resource].set()
        if resource is PODS:
            self.on_pods(objects, first=first)

    def _job_changed(self, job: Object, gone: bool) -> None:
        uid, job_id = job["metadata"]["uid"], job_id_of(job)
        before = self._jobs.get(uid)
        if gone:
            self._jobs.pop(uid, None)
            self._gone_jobs[uid] = None
            if len(self._gone_jobs) > MAX_GONE:
                del self._gone_jobs[next(iter(self._gone_jobs))]
        else:
            self._gone_jobs.pop(uid, None)  # a list may be older than what we have just made
            self._jobs[uid] = job
        if gone or before is None or _gist(before) != _gist(job):
            for event in self._news.pop(job_id, {}).values():
                event.set()

    def _pod_changed(self, pod: Object, gone: bool) -> None:
        uid, job_id, slot = pod["metadata"]["uid"], job_id_of(pod), slot_of(pod)
        if gone:
            self._pods.pop(uid, None)
            uids = self._of_slot.get((job_id, slot), set())
            uids.discard(uid)
            if not uids:
                self._of_slot.pop((job_id, slot), None)
        else:
            self._pods[uid] = pod
            self._of_slot.setdefault((job_id, slot), set()).add(uid)
        self.on_pod(pod, gone)
        if (event := self._news.get(job_id, {}).pop(slot, None)) is not None:
            event.set()


def job_id_of(found: Object) -> str:
    """Which job of ours an object belongs to."""
    return str(found["metadata"].get("labels", {}).get(JOB_ID_LABEL, ""))


def _version(found: Object) -> int:
    """Grows with every change of an object."""
    return int(found["metadata"]["resourceVersion"])


def _gist(job: Object) -> object:
    """What a start that waits must know of: a Job's counters change with every pod."""
    status = job.get("status", {})
    conditions = [(each["type"], each["status"]) for each in status.get("conditions", ())]
    leaving = "deletionTimestamp" in job["metadata"]
    return job["spec"].get("suspend"), status.get("failedIndexes"), conditions, leaving
