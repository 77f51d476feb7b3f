"""The Indexed Job: one for each job of ours, an index for each worker."""

from services.common.exit_codes import HANDED_BACK, JOB_IS_OVER, NEVER_OF_USE
from services.scheduler.adapters.kubernetes_workers.manifests.pod import pod_template
from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work
from services.scheduler.adapters.kubernetes_workers.names import (
    DEQUEUER,
    ELASTIC_ANNOTATION,
    EPOCH_ANNOTATION,
    PARTS_ANNOTATION,
    QUEUE_LABEL,
)

_NO_LIMIT = 1_000_000


def job_manifest(work: Work, parts: int) -> Json:
    """A job's Job, with its full size. `parts` as `parts_for` says of the job's document."""
    workers = work.job.workers
    queue = work.job.spec.options.queue_name or work.config.queue_name
    metadata: Json = {
        "name": work.name,
        "namespace": work.namespace,
        "labels": work.labels(),
        "annotations": {EPOCH_ANNOTATION: str(work.epoch), PARTS_ANNOTATION: str(parts)},
    }
    if queue:
        metadata["labels"][QUEUE_LABEL] = queue
        # Every job of ours may change its size while it runs, which Kueue otherwise answers by starting it afresh.
        metadata["annotations"][ELASTIC_ANNOTATION] = "true"
    spec: Json = {
        "completionMode": "Indexed",
        "completions": workers,
        "parallelism": workers,
        "backoffLimitPerIndex": _NO_LIMIT,  # the scheduler decides what is hopeless
        "podFailurePolicy": {"rules": _failure_rules()},
        "podReplacementPolicy": "Failed",
        "template": pod_template(work, parts),
    }
    if queue:
        spec["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _failure_rules() -> list[Json]:
    """The first that applies counts. What none of them names is replaced, with Kubernetes's own growing pauses."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _rule("FailIndex", NEVER_OF_USE),
        _rule("FailJob", JOB_IS_OVER),
        _rule("Ignore", HANDED_BACK),
    ]


def _rule(action: str, code: int) -> Json:
    return {"action": action, "onExitCodes": {"containerName": DEQUEUER, "operator": "In", "values": [code]}}
