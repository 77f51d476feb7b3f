"""What the dequeuers of a job's pods are told: all the same. What differs they learn from their pod."""

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.scheduler.adapters.kubernetes_workers.manifests.volumes import TOKEN_DIRECTORY, TOKEN_FILE
from services.scheduler.adapters.kubernetes_workers.manifests.work import Work
from services.scheduler.adapters.probe_message import probe_message

STOP_SECONDS = 5.0
"""Of the pod's grace period, kept for the containers: they are told to end when the dequeuer has."""


def worker_spec(work: Work) -> pb.WorkerSpec:
    """A job's specification for its dequeuers.

    Only what they need of the containers: they neither start them nor ask their liveness probes.
    """
    settings = work.settings
    return pb.WorkerSpec(
        api_name=work.api.name,
        api_id=work.api.api_id,
        job_id=work.job.spec.job_id,
        scheduler_address=settings.scheduler_address,
        port=work.config.pod.port,
        max_concurrency=work.config.pod.max_concurrency,
        batch_timeout_seconds=work.job.spec.batch_timeout_seconds,
        orphan_seconds=settings.orphan_seconds,
        containers=[
            pb.Container(name=each.name, image=each.image, readiness_probe=probe_message(each.readiness_probe, {}))
            for each in work.config.pod.containers
        ],
        pod=pb.PodRuntime(
            token_file=f"{TOKEN_DIRECTORY}/{TOKEN_FILE}",
            termination_seconds=settings.grace_seconds,
            stop_seconds=STOP_SECONDS,
        ),
    )
