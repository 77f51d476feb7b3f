"""What our objects are called, and how they are labelled.

A Job's name begins with its API's, so that people know it, and ends with the job's id, so that it is unique. A pod's
hostname is the Job's name, a dash and its index, and may have 63 characters: five of them are the index's.
"""

from collections.abc import Mapping

JOB_ID_LABEL = "jobID"
API_NAME_LABEL = "apiName"
DEPLOYMENT_LABEL = "batch.cortex.dev/deployment"
WORKER_LABEL = "cortex.dev/batch"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Put on pods by the Job controller."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

EPOCH_ANNOTATION = "batch.cortex.dev/epoch"
"""Which leader's word an object follows: a number that grows with every leader."""
PARTS_ANNOTATION = "batch.cortex.dev/spec-parts"
"""In how many config maps the job's document is kept; 0 for one that is not split."""
ELASTIC_ANNOTATION = "kueue.x-k8s.io/elastic-job"

DEQUEUER = "dequeuer"
"""The main container."""

_MAX_NAME = 40


def job_name(api_name: str, job_id: str) -> str:
    """The name of a job's Job."""
    return f"{api_name[:_MAX_NAME].rstrip('-')}-{job_id}"


def selector(deployment: str, job_id: str = "") -> str:
    """Selects all that is ours, or what is one job's."""
    labels: Mapping[str, str] = {WORKER_LABEL: "worker", DEPLOYMENT_LABEL: deployment}
    if job_id:
        labels = {**labels, JOB_ID_LABEL: job_id}
    return ",".join(f"{name}={value}" for name, value in labels.items())
