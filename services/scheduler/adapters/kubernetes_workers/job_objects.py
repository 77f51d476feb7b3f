"""What is written to the API server, and by what right.

Every Job carries the epoch of the leader that it follows. A leader stamps the Jobs that it takes over, and from then on
every change that it makes demands its own epoch in the very same request; so what a deposed leader still tries fails,
and it never takes a Job back from a higher epoch. Making an object that is there already is fine: it has our name and
our labels, so an earlier try of ours has made it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from services.common.errors import Category, CortexError
from services.common.kubernetes import CONFIG_MAPS, JOBS, PODS, SECRETS, Cluster, Object
from services.common.kubernetes.errors import CONFLICT, EXISTS, INVALID, NOT_FOUND
from services.scheduler.adapters.kubernetes_workers.manifests import (
    Work,
    document_maps,
    job_manifest,
    parts_for,
    token_secret,
    worker_map,
)
from services.scheduler.adapters.kubernetes_workers.names import EPOCH_ANNOTATION, JOB_ID_LABEL, PARTS_ANNOTATION
from services.scheduler.adapters.kubernetes_workers.worker_spec import worker_spec
from services.scheduler.domain.job_document import job_document

log = logging.getLogger(__name__)

MANAGER = "cortex-scheduler"
"""The owner of the fields that we apply."""

_EPOCH_PATH = "/metadata/annotations/" + EPOCH_ANNOTATION.replace("/", "~1")


def epoch_of(job: Object) -> int:
    """Which leader a Job follows; 0 for none."""
    text = str(job["metadata"].get("annotations", {}).get(EPOCH_ANNOTATION, ""))
    return int(text) if text.isdigit() else 0


def parts_of(job: Object) -> int:
    """In how many config maps the pods of a Job expect its document."""
    text = str(job["metadata"].get("annotations", {}).get(PARTS_ANNOTATION, ""))
    return int(text) if text.isdigit() else 0


class JobObjects:
    """See the module's text. `sign` makes a token for any worker of a job."""

    def __init__(self, cluster: Cluster, namespace: str, epoch: int, sign: Callable[[str], str]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._epoch = epoch
        self._sign = sign

    # Making

    async def make(self, work: Work, workers: int) -> Object:
        """The job's Job, with all that its pods mount. Raises `CortexError`."""
        document = job_document(work.job)
        manifest = job_manifest(work, parts_for(document))
        manifest["spec"] |= {"parallelism": workers, "completions": workers}
        try:
            job = await self._cluster.create(JOBS, self._namespace, manifest)
        except CortexError as error:
            if error.kind != EXISTS:
                raise
            job = await self._ours(work, manifest["metadata"]["labels"])
        await self.equip(work, job, document)
        return job

    async def _ours(self, work: Work, labels: Mapping[str, str]) -> Object:
        job = await self._cluster.get(JOBS, self._namespace, work.name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            text = f"the Job {work.name} is just being removed"
            raise CortexError("kubernetes.conflict", text, Category.UNAVAILABLE)
        template = job["spec"]["template"]["metadata"].get("labels", {})  # nobody can change these
        if template.get(JOB_ID_LABEL) != work.job.spec.job_id:
            text = f"there is a Job {work.name} in {self._namespace} already that is not ours: remove or rename it"
            raise CortexError("kubernetes.already_exists", text)
        return await self._label(await self.own(job), labels)

    async def equip(self, work: Work, job: Object, document: str | None = None) -> None:
        """All that the pods of a Job mount. Kubernetes starts none of its containers before that is there."""
        await self._apply(CONFIG_MAPS, worker_map(work, job, worker_spec(work)))
        await self.write_document(job, job_document(work.job) if document is None else document)
        await self.renew_token(job)

    async def write_document(self, job: Object, document: str) -> None:
        """Make this what the containers find as /cortex/spec/job.json."""
        for each in document_maps(job, document, parts_of(job)):
            await self._apply(CONFIG_MAPS, each)

    async def renew_token(self, job: Object) -> None:
        """Put a fresh token where the dequeuers read it whenever they connect."""
        token = self._sign(job["metadata"]["labels"][JOB_ID_LABEL])
        await self._apply(SECRETS, token_secret(job, token))

    async def _apply(self, resource: Any, manifest: Object) -> None:
        await self._cluster.apply(resource, self._namespace, manifest, MANAGER)

    # Changing

    async def own(self, job: Object) -> Object:
        """The Job, with our epoch on it. Raises `kubernetes.deposed` when it follows a later leader."""
        if epoch_of(job) == self._epoch:
            return job
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        while True:
            now = await self._cluster.get(JOBS, self._namespace, name)
            if now is None or now["metadata"]["uid"] != uid:
                raise CortexError(NOT_FOUND, f"the Job {name} is gone", Category.UNAVAILABLE)
            if epoch_of(now) > self._epoch:
                raise _deposed(now)
            change = {
                "resourceVersion": now["metadata"]["resourceVersion"],
                "annotations": {EPOCH_ANNOTATION: str(self._epoch)},
            }
            try:
                return await self._cluster.patch(JOBS, self._namespace, name, {"metadata": change})
            except CortexError as error:
                if error.kind != CONFLICT:  # changed meanwhile, such as by the Job controller
                    raise

    async def resize(self, job: Object, workers: int) -> Object:
        """Have so many workers: both numbers in one request, as an elastic Indexed Job demands."""
        spec = job["spec"]
        if (spec.get("parallelism"), spec.get("completions")) == (workers, workers):
            return job
        sizes = [
            {"op": "replace", "path": f"/spec/{name}", "value": workers} for name in ("completions", "parallelism")
        ]
        return await self._change(job, sizes)

    async def restore_labels(self, job: Object) -> Object | None:
        """Give a Job that is not found by its labels these back; None where it is gone."""
        name, labels = job["metadata"]["name"], job["metadata"]["labels"]
        now = await self._cluster.get(JOBS, self._namespace, name)
        if now is None or now["metadata"]["uid"] != job["metadata"]["uid"]:
            return None
        return await self._label(await self.own(now), labels)

    async def _label(self, job: Object, labels: Mapping[str, str]) -> Object:
        has = job["metadata"].get("labels", {})
        if labels.items() <= has.items():
            return job
        log.warning("somebody else changed labels of the Job %s; it gets them back", job["metadata"]["name"])
        return await self._change(job, [{"op": "add", "path": "/metadata/labels", "value": {**has, **labels}}])

    async def _change(self, job: Object, operations: list[Object]) -> Object:
        """Change a Job if it still follows us."""
        name = job["metadata"]["name"]
        demand = {"op": "test", "path": _EPOCH_PATH, "value": str(self._epoch)}
        try:
            return await self._cluster.patch(JOBS, self._namespace, name, [demand, *operations])
        except CortexError as error:
            now = await self._cluster.get(JOBS, self._namespace, name) if error.kind == INVALID else None
            if now is not None and epoch_of(now) > self._epoch:
                raise _deposed(now) from error
            raise

    # Removing

    async def remove(self, job: Object) -> None:
        """Have a Job deleted, with all that hangs on it, unless it follows a later leader."""
        metadata = job["metadata"]
        try:
            await self.own(job)
        except CortexError as error:
            if error.kind == NOT_FOUND:
                return
            raise
        await self._cluster.delete(JOBS, self._namespace, metadata["name"], uid=metadata["uid"])

    async def end_pod(self, job: Object | None, name: str, uid: str, grace_seconds: int) -> None:
        """Have a pod deleted, unless its Job follows a later leader."""
        if job is not None:
            fresh = await self._cluster.get(JOBS, self._namespace, job["metadata"]["name"])
            if fresh is not None and epoch_of(fresh) > self._epoch:
                raise _deposed(fresh)
        await self._cluster.delete(PODS, self._namespace, name, uid=uid, grace_seconds=grace_seconds)

    async def declare_lost(self, pod: Object) -> None:
        """A pod that its node does not end: say for the node that it has failed, and let it go.

        The Job controller replaces a pod only when it has failed, and a node that is gone never says so.
        """
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        others = [each for each in pod["status"].get("conditions", ()) if each["type"] != "DisruptionTarget"]
        lost = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "NodeLost",
            "message": f"its node {pod['spec'].get('nodeName', '')} did not end it in time",
        }
        change = {"metadata": {"uid": uid}, "status": {"phase": "Failed", "conditions": [*others, lost]}}
        await self._cluster.patch(PODS, self._namespace, name, change, subresource="status")
        await self._cluster.delete(PODS, self._namespace, name, uid=uid, grace_seconds=0)


def _deposed(job: Object) -> CortexError:
    name = job["metadata"]["name"]
    text = f"the Job {name} follows another scheduler by now, of epoch {epoch_of(job)}: this one leads no more"
    return CortexError("kubernetes.deposed", text, Category.CONFLICT)
