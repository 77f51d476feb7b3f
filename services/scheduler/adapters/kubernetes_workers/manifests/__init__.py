"""From an API's configuration, a job and the operator's settings to what Kubernetes is given: plain dictionaries.

Pure, and by subject: `job` is the Indexed Job around `pod`, which puts together `containers` (with `resources`),
`scheduling` and `volumes`; `files` are the config maps and the secret that the volumes show.
"""

from services.scheduler.adapters.kubernetes_workers.manifests.files import (
    document_maps,
    token_secret,
    worker_map,
)
from services.scheduler.adapters.kubernetes_workers.manifests.job import job_manifest
from services.scheduler.adapters.kubernetes_workers.manifests.volumes import parts_for
from services.scheduler.adapters.kubernetes_workers.manifests.work import Work

__all__ = ["Work", "document_maps", "job_manifest", "parts_for", "token_secret", "worker_map"]
