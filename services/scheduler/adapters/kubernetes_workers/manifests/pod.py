"""The pod that every worker of a job is."""

from services.scheduler.adapters.kubernetes_workers.manifests.containers import dequeuer, init_containers
from services.scheduler.adapters.kubernetes_workers.manifests.scheduling import scheduling
from services.scheduler.adapters.kubernetes_workers.manifests.volumes import volumes
from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work


def pod_template(work: Work, parts: int) -> Json:
    """The template of the job's pods; `parts` as `parts_for` says of its document."""
    settings = work.settings
    spec: Json = {
        "restartPolicy": "Never",
        "initContainers": init_containers(work, parts),
        "containers": [dequeuer(work, parts)],
        "volumes": volumes(work, parts),
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "automountServiceAccountToken": False,  # containers have no business with Kubernetes
        "enableServiceLinks": False,  # a Service called `cortex` would set CORTEX_PORT
        **scheduling(work),
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    annotations = {
        # Nobody moves a worker to save a node: its containers may have taken minutes to become ready.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "kubectl.kubernetes.io/default-container": work.config.pod.containers[0].name,
    }
    metadata = {
        "labels": {**settings.pod_labels, **work.labels()},
        "annotations": {**annotations, **settings.pod_annotations},
    }
    return {"metadata": metadata, "spec": spec}
