"""What all of a job's manifests are made from."""

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.scheduler.adapters.kubernetes_workers.names import (
    API_NAME_LABEL,
    DEPLOYMENT_LABEL,
    JOB_ID_LABEL,
    WORKER_LABEL,
    job_name,
)
from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings
from services.scheduler.domain.api_config import load_api
from services.scheduler.domain.api_config.model import KIND, ApiConfig
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobRecord

Json: TypeAlias = dict[str, Any]

_MAX_LABEL = 63


@dataclass(frozen=True, slots=True)
class Work:
    """One job, and what its workers run."""

    settings: KubernetesWorkerSettings
    namespace: str
    api: ApiVersion
    config: ApiConfig
    job: JobRecord
    epoch: int
    """Of the leader that speaks."""

    @classmethod
    def of(
        cls, settings: KubernetesWorkerSettings, namespace: str, api: ApiVersion, job: JobRecord, epoch: int
    ) -> "Work":
        """Reads the API's configuration."""
        return cls(settings, namespace, api, load_api(api), job, epoch)

    @property
    def name(self) -> str:
        """The Job's, and what the names of all that belongs to it begin with."""
        return job_name(self.api.name, self.job.spec.job_id)

    def labels(self) -> dict[str, str]:
        """On everything of the job."""
        document = json.loads(self.api.spec_json)
        return {
            API_NAME_LABEL: self.api.name,
            "apiKind": KIND,
            "apiID": self.api.api_id,
            "specID": document["spec_id"],
            "podID": document["pod_id"][:_MAX_LABEL],
            JOB_ID_LABEL: self.job.spec.job_id,
            "cortex.dev/api": "true",
            WORKER_LABEL: "worker",
            DEPLOYMENT_LABEL: self.settings.deployment,
        }
