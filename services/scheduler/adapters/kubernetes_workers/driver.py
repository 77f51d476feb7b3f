"""The `WorkerDriver` for Kubernetes.

One Indexed Job for each job of ours; a worker is a pod, its slot is the pod's completion index, its id the pod's uid.
Kubernetes makes the pods, and makes a new one where one was lost; `start` hands out the pod of its slot that nobody
had yet, and waits for one where there is none. Everything that is known comes from what `Observed` sees and can be seen
again, so a restarted scheduler needs no more than the ids that its ledger holds.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from services.common.errors import Category, CortexError
from services.common.events import wait_within
from services.common.kubernetes import Cluster, Object
from services.scheduler.adapters.kubernetes_workers import job_status, pod_status
from services.scheduler.adapters.kubernetes_workers.caretaker import Caretaker, Made
from services.scheduler.adapters.kubernetes_workers.job_objects import JobObjects
from services.scheduler.adapters.kubernetes_workers.manifests import Work
from services.scheduler.adapters.kubernetes_workers.observed import Observed
from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings
from services.scheduler.adapters.kubernetes_workers.tellings import Tellings
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord
from services.scheduler.domain.model.worker import ContainerState, End, Health, Phase, WorkerRecord
from services.scheduler.usecases.ports.workers import WorkerExit

log = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 10.0
"""So long a new leader waits for the first list; then it goes on, and hears later what there is."""
KILL_GRACE_SECONDS = 1
"""The shortest that still lets the node say that a pod has ended."""
LOOK_AGAIN_SECONDS = 5.0
"""A start that waits looks again so often, whether or not something changed: what is stalled changes by itself."""


class KubernetesWorkerDriver:
    """See the module's text."""

    outlives_scheduler = True

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        settings: KubernetesWorkerSettings,
        epoch: int,
        sign: Callable[[str], str],
    ) -> None:
        """`epoch` grows with every leader; `sign` makes a token for any worker of a job."""
        self._namespace = namespace
        self._settings = settings
        self._epoch = epoch
        self._observed = Observed(cluster, namespace, settings.deployment)
        self._objects = JobObjects(cluster, namespace, epoch, sign)
        self._tellings = Tellings(settings.stalled_seconds)
        self._observed.on_pod = self._tellings.look
        self._observed.on_pods = self._all_pods
        self._sizes: dict[str, int] = {}  # what jobs are to have, by job id
        self._made: dict[str, Made] = {}  # by job id
        self._caretaker = Caretaker(self._observed, self._objects, self._sizes, self._made)
        self._making: dict[str, asyncio.Lock] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, is_over: Callable[[str], Awaitable[bool]]) -> None:
        """Begin to look. Returns when all was seen once, or after a while if the API server is away.

        `is_over` is asked whether a job is over, or unknown: then nothing of it may stay.
        """
        for look in (self._observed.run, self._tellings.run, partial(self._caretaker.run, is_over)):
            self._tasks.append(asyncio.create_task(_for_ever(look), name="look after workers"))
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._observed.complete()
        except TimeoutError:
            log.warning("Kubernetes does not say which workers there are; going on meanwhile")

    async def close(self) -> None:
        """Look no more. The workers go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _all_pods(self, pods: Sequence[Object], *, first: bool) -> None:
        """All were listed. What had ended before we looked for the first time is counted already, or not ours to."""
        if first:
            for pod in filter(pod_status.has_ended, pods):
                self._tellings.skip(pod["metadata"]["uid"])
        self._tellings.missed({pod["metadata"]["uid"] for pod in pods})

    # What is told

    def on_exit(self, callback: Callable[[WorkerExit], None]) -> None:
        """Call back once for each worker that was handed out and is gone."""
        self._tellings.on_exit = callback

    def on_health(self, callback: Callable[[str, Health], None]) -> None:
        """Call back with (worker id, health) when that changed."""
        self._tellings.on_health = callback

    def on_containers(self, callback: Callable[[str, Sequence[ContainerState]], None]) -> None:
        """Call back with (worker id, containers) when one changed."""
        self._tellings.on_containers = callback

    # Workers

    def check(self, config: ApiConfig) -> None:
        """Raises `resources.invalid_node_group_selector` for a node group that the settings do not know.

        Which nodes there are, or will be, is Kubernetes's to know.
        """
        known = self._settings.group_names
        if known is not None and (unknown := sorted(set(config.node_groups or ()) - known)):
            groups = ", ".join(sorted(known))
            text = f"node_groups: there is no node group {unknown[0]!r} here; choose among {groups}"
            raise CortexError("resources.invalid_node_group_selector", text)

    async def start(self, api: ApiVersion, job: JobRecord, worker: WorkerRecord, token: str) -> WorkerRecord:
        """Have a pod in this slot, and say which it is. `token` is not used: pods of a job share one."""
        work = Work.of(self._settings, self._namespace, api, job, self._epoch)
        begun = asyncio.get_running_loop().time()
        while True:
            news = self._observed.news(worker.job_id, worker.slot)  # first: nothing is missed between look and wait
            pod = await self._pod_for(work, worker.slot)
            if pod is not None:
                uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
                self._tellings.hand_out(uid, pod)
                return replace(worker, worker_id=uid, detail=json.dumps({"pod": name}))
            waited = asyncio.get_running_loop().time() - begun
            self._tellings.waiting(worker.worker_id, self._why_waiting(worker.job_id, waited))
            await wait_within(news, LOOK_AGAIN_SECONDS)

    async def _pod_for(self, work: Work, slot: int) -> Object | None:
        """A pod of this slot that can work and that nobody had yet; None while there is none.

        Raises `CortexError` for a slot that will never have one (INVALID), or whose pod ended before it was handed out.
        """
        job = await self._ensure(work)
        if job is None:
            return None
        job_id = work.job.spec.job_id
        fresh = [
            pod
            for pod in self._observed.pods_of(job_id, slot)
            if not self._tellings.knows(pod["metadata"]["uid"])
            and not pod_status.is_leaving(pod)
            and _belongs(pod, job)
        ]
        for pod in fresh:
            if not pod_status.has_ended(pod):
                return pod
        if job_status.has_failed(job, slot):
            ends = (pod_status.exit_of(pod, gone=False) for pod in self._observed.pods_of(job_id, slot))
            why = "; ".join(end.reason for end in ends if end is not None) or "its pod failed for good"
            raise CortexError("worker.cannot_start", why)
        for pod in fresh:
            self._tellings.skip(pod["metadata"]["uid"])
            end = pod_status.exit_of(pod, gone=False)
            if end is not None and not end.blameless and end.end is not End.SUCCEEDED:
                raise CortexError("worker.cannot_start", end.reason, Category.INTERNAL)
        return None

    async def _ensure(self, work: Work) -> Object | None:
        """The job's Job, with everything that its pods need; None while an old one is on its way out."""
        job_id = work.job.spec.job_id
        async with self._making.setdefault(job_id, asyncio.Lock()):
            job = self._observed.job(job_id)
            if job is not None and (job_status.is_over(job) or "deletionTimestamp" in job["metadata"]):
                # Its workers are done, or it was taken away, and yet ours goes on: it needs another one.
                await self._objects.remove(job)
                return None
            made = self._made.get(job_id)
            if job is not None and made is not None and made.job["metadata"]["uid"] == job["metadata"]["uid"]:
                return job
            size = self._sizes.setdefault(job_id, work.job.workers)
            if job is None:
                job = await self._objects.make(work, size)
            else:
                job = await self._objects.own(job)
                await self._objects.equip(work, job)
            job = await self._objects.resize(job, size)  # also one that was there, and that we have not seen yet
            self._observed.note(job)
            self._made[job_id] = Made(work, job)
            self._caretaker.equipped(job_id)
            return job

    def _why_waiting(self, job_id: str, seconds: float) -> Health:
        job = self._observed.job(job_id)
        if job is not None and (reason := job_status.suspended(job)) is not None:
            return Health(Phase.PENDING, reason, queued=True)
        stalled = seconds >= self._settings.stalled_seconds
        reason = "Kubernetes has not made its pod yet"
        if job is not None and seconds >= LOOK_AGAIN_SECONDS:  # such as a quota: only the Job's events say so
            reason += f": `kubectl describe job {job['metadata']['name']}` says why"
        return Health(Phase.STALLED if stalled else Phase.PENDING, reason)

    async def adopt(self, worker: WorkerRecord) -> bool:
        """Watch a pod that an earlier scheduler handed out. False when it is gone."""
        if self._tellings.follows(worker.worker_id):
            self._tellings.tell_again(worker.worker_id)
            return True
        pod = self._observed.pod(worker.worker_id)
        if self._observed.is_complete and (pod is None or pod_status.has_ended(pod)):
            return False
        self._tellings.hand_out(worker.worker_id, pod)
        return True

    async def kill(self, worker: WorkerRecord) -> None:
        """Have the worker's pod deleted. Its exit is told when it is gone."""
        if not worker.found:
            return
        pod = self._observed.pod(worker.worker_id)
        if self._observed.is_complete and (pod is None or pod_status.has_ended(pod)):
            return
        await self._caretaker.end(worker.job_id, worker.worker_id, json.loads(worker.detail)["pod"], KILL_GRACE_SECONDS)

    async def resize(self, job: JobRecord, workers: int) -> None:
        """Have Kubernetes keep so many pods. Raises `CortexError` when it does not answer."""
        job_id = job.spec.job_id
        self._sizes[job_id] = workers
        async with self._making.setdefault(job_id, asyncio.Lock()):
            made = self._observed.job(job_id)
            if made is not None and not job_status.is_over(made):
                self._observed.note(await self._objects.resize(await self._objects.own(made), workers))
                self._caretaker.follow(job_id)

    # The job

    async def write_job_spec(self, job: JobRecord, spec_json: str) -> None:
        """Make this what the containers find; those of running pods within the minute that Kubernetes takes for it."""
        job_id = job.spec.job_id
        if (made := self._made.get(job_id)) is not None:
            made.work = replace(made.work, job=job)
        if (found := self._observed.job(job_id)) is not None:  # else it is written with the Job
            await self._objects.write_document(found, spec_json)

    async def clean_up(self, job_id: str) -> None:
        """Have the job's Job deleted, and with it all that there is of it."""
        self._sizes.pop(job_id, None)
        self._making.pop(job_id, None)
        await self._caretaker.remove(job_id)
        self._made.pop(job_id, None)


def _belongs(pod: Object, job: Object) -> bool:
    return any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", ()))


async def _for_ever(look: Callable[[], Awaitable[None]]) -> None:
    """What this does must not end while the scheduler lives, whatever an API server may answer."""
    while True:
        try:
            await look()
        except Exception:
            log.exception("looking after the workers failed; it begins again")
        await asyncio.sleep(1.0)
