"""The Job controller.

Each look at a Job counts the pods that ended (once: their finalizer goes with the count), decides whether the Job is
over, and then makes or deletes pods until as many work as there should be. Indexes that failed wait: the delay doubles.
"""

import time
from dataclasses import dataclass, field

from tests.cluster.api.api import Api, Write
from tests.cluster.api.apply import Writer
from tests.cluster.api.clock import now, seconds_since
from tests.cluster.api.deletion import Deletion
from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.store import Change
from tests.cluster.controllers import indexes, job_pods
from tests.cluster.controllers.events import tell
from tests.cluster.controllers.loop import Key, Loop

_WRITER = Writer("kube-controller-manager", "Update")
_STATUS = Write(Writer("kube-controller-manager", "Update", "status"), "status")


@dataclass(slots=True)
class _Look:
    """What one look at a Job found, and what becomes of it."""

    job: Object
    pods: list[Object]
    succeeded: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    failures: int = 0
    successes: int = 0
    again: float | None = None
    target: tuple[str, str] | None = None
    """Why the Job fails."""

    @property
    def spec(self) -> Object:
        """The Job's."""
        return dict(self.job["spec"])

    @property
    def indexed(self) -> bool:
        """Whether each completion has a number."""
        return bool(self.job["spec"]["completionMode"] == "Indexed")

    @property
    def active(self) -> list[Object]:
        """Pods that work, or will."""
        return [
            one
            for one in self.pods
            if job_pods.phase(one) in ("Pending", "Running", "Unknown") and not job_pods.terminating(one)
        ]

    @property
    def leaving(self) -> list[Object]:
        """Pods that have been told to end."""
        return [
            one
            for one in self.pods
            if job_pods.phase(one) in ("Pending", "Running", "Unknown") and job_pods.terminating(one)
        ]

    def soon(self, seconds: float) -> None:
        """Look again then, at the latest."""
        self.again = seconds if self.again is None else min(self.again, seconds)


class JobController:
    """Looks at Jobs."""

    def __init__(self, api: Api, backoff_seconds: float, most_backoff_seconds: float = 600) -> None:
        self._api = api
        self._jobs = api.kinds.named("jobs", "batch")
        self._pods = api.kinds.named("pods")
        self._backoff = backoff_seconds
        self._most_backoff = most_backoff_seconds
        self._ended: dict[str, float] = {}
        """When we first saw a pod that failed, by uid: exacter than its own times."""
        self.loop = Loop(api, "job controller", self._keys, self._sync)

    def _keys(self, kind: Kind, change: Change) -> set[Key]:
        if kind is self._jobs:
            return {_key(change.last)}
        if kind is self._pods:
            owners = change.last["metadata"].get("ownerReferences") or []
            return {(change.last["metadata"]["namespace"], one["name"]) for one in owners if one["kind"] == "Job"}
        return set()

    def _sync(self, key: Key) -> float | None:
        namespace, name = key
        job = self._api.store.get(self._jobs, namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            self._let_go(namespace, name)
        if job is None:
            return None
        look = _Look(job, self._own_pods(job))
        conditions = _true(job)
        if conditions & {"Complete", "Failed"}:
            self._release(look.pods)
            return self._expire(job)
        self._count(look)
        self._judge(look, conditions)
        over = look.target is not None or self._reached(look)
        if "deletionTimestamp" not in job["metadata"]:
            if over or job["spec"].get("suspend"):
                self._delete(look, look.active)
            else:
                self._scale(look)
        self._write(look, over)
        return look.again

    # Counting

    def _count(self, look: _Look) -> None:
        status = look.job.get("status") or {}
        completions = look.spec.get("completions")
        look.succeeded = {one for one in indexes.parse(status.get("completedIndexes", "")) if one < (completions or 0)}
        look.failed = {one for one in indexes.parse(status.get("failedIndexes", "")) if one < (completions or 0)}
        look.failures, look.successes = status.get("failed", 0), status.get("succeeded", 0)
        newest = {job_pods.index_of(pod): pod["metadata"]["uid"] for pod in sorted(look.pods, key=_made)}
        for pod in look.pods:
            index = job_pods.index_of(pod)
            inside = not look.indexed or 0 <= index < (completions or 0)
            match job_pods.phase(pod):
                case "Succeeded" if job_pods.tracked(pod):
                    look.successes += inside
                    look.succeeded |= {index} if look.indexed and inside else set()
                    self._release([pod])
                case "Failed":
                    last = "backoffLimitPerIndex" in look.spec and newest[index] == pod["metadata"]["uid"]
                    self._count_failure(look, pod, inside, last)
        if look.indexed:
            look.successes = len(look.succeeded)

    def _count_failure(self, look: _Look, pod: Object, inside: bool, last: bool) -> None:
        """A failed pod counts once. An index's last one stays until there is another: it remembers."""
        uid = pod["metadata"]["uid"]
        index, verdict = job_pods.index_of(pod), job_pods.verdict(look.job, pod)
        if inside and job_pods.tracked(pod):
            if uid not in self._ended:
                self._ended[uid] = time.time()
                look.failures += verdict.action != "Ignore"
            if verdict.action == "FailJob" and look.target is None:
                look.target = ("PodFailurePolicy", verdict.message)
            limit = look.spec.get("backoffLimitPerIndex")
            spent = limit is not None and verdict.action == "Count" and job_pods.failures_before(pod)[0] >= limit
            if verdict.action == "FailIndex" or spent:
                look.failed.add(index)
        if not last or not inside or index in look.failed | look.succeeded or look.target:
            self._release([pod])

    def _judge(self, look: _Look, conditions: set[str]) -> None:
        """Whether the Job has failed."""
        spec, status = look.spec, look.job.get("status") or {}
        if "FailureTarget" in conditions:
            known = next(one for one in status["conditions"] if one["type"] == "FailureTarget")
            look.target = (known["reason"], known["message"])
            return
        if look.target or "SuccessCriteriaMet" in conditions:
            return
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and status.get("startTime") and not spec.get("suspend"):
            left = deadline - seconds_since(status["startTime"])
            if left <= 0:
                look.target = ("DeadlineExceeded", "Job was active longer than specified deadline")
            else:
                look.soon(left)
        if look.failures > spec["backoffLimit"]:
            look.target = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif look.indexed and "backoffLimitPerIndex" in spec and look.failed:
            if len(look.failed) > spec.get("maxFailedIndexes", len(look.failed)):
                look.target = (
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                )
            elif len(look.failed | look.succeeded) >= spec["completions"]:
                look.target = ("FailedIndexes", "Job has failed indexes")

    def _reached(self, look: _Look) -> bool:
        completions = look.spec.get("completions")
        if completions is None:
            return look.successes > 0 and not look.active and not look.leaving
        return bool(look.successes >= completions)

    # Pods

    def _scale(self, look: _Look) -> None:
        spec = look.spec
        excess = [pod for pod in look.active if look.indexed and job_pods.index_of(pod) >= spec["completions"]]
        working = [pod for pod in look.active if pod not in excess]
        wanted = spec["parallelism"]
        if spec.get("completions") is not None:
            wanted = min(wanted, spec["completions"] - look.successes - len(look.failed))
        elif look.successes:
            wanted = min(wanted, len(working))
        if len(working) > wanted:
            ranked = sorted(working, key=lambda pod: (job_pods.phase(pod) == "Running", -job_pods.index_of(pod)))
            excess += ranked[: len(working) - wanted]
        self._delete(look, excess)
        only_failed = spec["podReplacementPolicy"] == "Failed"
        missing = wanted - len(working) - (len(look.leaving) if only_failed else 0)
        if missing <= 0:
            return
        taken = {job_pods.index_of(pod) for pod in working + (look.leaving if only_failed else [])}
        for _ in range(missing) if not look.indexed else ():
            self._make(look, None)
        if look.indexed:
            free = [one for one in range(spec["completions"]) if one not in taken | look.succeeded | look.failed]
            for index in free[:missing]:
                self._replace(look, index)

    def _replace(self, look: _Look, index: int) -> None:
        """A pod for an index, once its delay is over."""
        mine = [pod for pod in look.pods if job_pods.index_of(pod) == index and job_pods.phase(pod) == "Failed"]
        if not mine:
            self._make(look, index)
            return
        last = max(mine, key=_made)
        failures, ignored = job_pods.failures_before(last)
        if job_pods.verdict(look.job, last).action == "Ignore":
            ignored += 1
        else:
            failures += 1
        delay = min(self._backoff * 2 ** (failures + ignored - 1), self._most_backoff)
        left = self._ended.get(last["metadata"]["uid"], job_pods.ended_at(last) or 0.0) + delay - time.time()
        if left > 0:
            look.soon(left)
            return
        self._make(look, index, failures, ignored)
        self._release(mine)

    def _make(self, look: _Look, index: int | None, failures: int = 0, ignored: int = 0) -> None:
        namespace = look.job["metadata"]["namespace"]
        try:
            pod = self._api.create(
                self._pods, namespace, job_pods.pod_of(look.job, index, failures, ignored), Write(_WRITER)
            )
        except ApiError as error:
            tell(self._api, look.job, "Warning", "FailedCreate", f"Error creating: {error}", "job-controller")
            look.soon(self._backoff)
            return
        look.pods.append(pod)
        tell(
            self._api,
            look.job,
            "Normal",
            "SuccessfulCreate",
            f"Created pod: {pod['metadata']['name']}",
            "job-controller",
        )

    def _delete(self, look: _Look, pods: list[Object]) -> None:
        for pod in pods:
            name = pod["metadata"]["name"]
            self._api.delete(self._pods, pod["metadata"]["namespace"], name, Deletion())
            tell(self._api, look.job, "Normal", "SuccessfulDelete", f"Deleted pod: {name}", "job-controller")
        look.pods = self._own_pods(look.job)

    def _own_pods(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        return [
            pod
            for pod in self._api.store.all(self._pods, job["metadata"]["namespace"])
            if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences") or [])
        ]

    def _release(self, pods: list[Object]) -> None:
        """They have been counted, and may go."""
        for pod in pods:
            if job_pods.tracked(pod):
                self._ended.pop(pod["metadata"]["uid"], None)
                self._change_finalizers(pod)

    def _change_finalizers(self, pod: Object) -> None:
        def without(live: Object) -> Object:
            live["metadata"]["finalizers"] = [
                one for one in live["metadata"].get("finalizers") or [] if one != job_pods.TRACKING
            ]
            return live

        self._api.change(self._pods, pod["metadata"]["namespace"], pod["metadata"]["name"], without, Write(_WRITER))

    def _let_go(self, namespace: str, name: str) -> None:
        """The pods of a Job that is gone, or going."""
        for pod in self._api.store.all(self._pods, namespace):
            owners = pod["metadata"].get("ownerReferences") or []
            gone = [
                one
                for one in owners
                if one["kind"] == "Job" and one["name"] == name and not self._there(namespace, one)
            ]
            if gone:
                self._release([pod])

    def _there(self, namespace: str, owner: Object) -> bool:
        job = self._api.store.get(self._jobs, namespace, owner["name"])
        return job is not None and job["metadata"]["uid"] == owner["uid"] and "deletionTimestamp" not in job["metadata"]

    # Status

    def _write(self, look: _Look, over: bool) -> None:
        job, before = look.job, look.job.get("status") or {}
        suspended = bool(job["spec"].get("suspend"))
        status: Object = {
            name: part
            for name, part in before.items()
            if name not in ("active", "ready", "succeeded", "failed", "completedIndexes")
        }
        status |= {"ready": sum(job_pods.ready(pod) for pod in look.active), "terminating": len(look.leaving)}
        status["uncountedTerminatedPods"] = {}
        counts = {"active": len(look.active), "succeeded": look.successes, "failed": look.failures}
        status |= {name: count for name, count in counts.items() if count}
        if look.indexed:
            status |= {"completedIndexes": indexes.text(look.succeeded)} if look.succeeded else {}
        if "backoffLimitPerIndex" in job["spec"]:
            status["failedIndexes"] = indexes.text(look.failed)
        conditions = list(before.get("conditions") or [])
        if not suspended and "startTime" not in status:
            status["startTime"] = now()
        if suspended and not over:
            status.pop("startTime", None)
        self._set_suspended(job, conditions, suspended and not over)
        if over:
            self._finish(look, status, conditions)
        status["conditions"] = conditions
        if not conditions:
            del status["conditions"]
        if status != before:
            name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
            self._api.change(self._jobs, namespace, name, lambda live: {**live, "status": status}, _STATUS)

    def _set_suspended(self, job: Object, conditions: list[Object], suspended: bool) -> None:
        there = next((one for one in conditions if one["type"] == "Suspended"), None)
        if there is None and not suspended:
            return
        if there is not None and (there["status"] == "True") == suspended:
            return
        word = "Suspended" if suspended else "Resumed"
        if there is not None:
            conditions.remove(there)
        conditions.append(_condition("Suspended", f"Job{word}", f"Job {word.lower()}", str(suspended)))
        tell(self._api, job, "Normal", word, f"Job {word.lower()}", "job-controller")

    def _finish(self, look: _Look, status: Object, conditions: list[Object]) -> None:
        """First what will be, then, when no pod is left, what is."""
        reason, message = look.target or ("CompletionsReached", "Reached expected number of succeeded pods")
        first, last = ("FailureTarget", "Failed") if look.target else ("SuccessCriteriaMet", "Complete")
        there = {one["type"] for one in conditions}
        if first not in there:
            conditions.append(_condition(first, reason, message))
        if look.active or look.leaving:
            return
        conditions.append(_condition(last, reason, message))
        if last == "Complete":
            status["completionTime"] = now()
        self._release(look.pods)
        kind, word = ("Warning", reason) if look.target else ("Normal", "Completed")
        tell(self._api, look.job, kind, word, message if look.target else "Job completed", "job-controller")
        if job_ttl := look.job["spec"].get("ttlSecondsAfterFinished"):
            look.soon(job_ttl)

    def _expire(self, job: Object) -> float | None:
        """Some Jobs go a while after their end."""
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None or "deletionTimestamp" in job["metadata"]:
            return None
        ends = [
            one["lastTransitionTime"] for one in job["status"]["conditions"] if one["type"] in ("Complete", "Failed")
        ]
        left = float(seconds - seconds_since(ends[0]))
        if left > 0:
            return left
        self._api.delete(self._jobs, *_key(job), Deletion(uid=job["metadata"]["uid"], policy="Foreground"))
        return None


def _condition(kind: str, reason: str, message: str, status: str = "True") -> Object:
    moment = now()
    times = {"lastProbeTime": moment, "lastTransitionTime": moment}
    return {"type": kind, "status": status, "reason": reason, "message": message, **times}


def _true(job: Object) -> set[str]:
    return {one["type"] for one in (job.get("status") or {}).get("conditions") or [] if one["status"] == "True"}


def _made(pod: Object) -> tuple[str, int]:
    return pod["metadata"]["creationTimestamp"], sum(job_pods.failures_before(pod))


def _key(thing: Object) -> Key:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]
