"""A job on Kubernetes, to vary."""

from dataclasses import replace
from typing import Any

import msgspec
import yaml

from services.scheduler.adapters.kubernetes_workers.manifests.work import Work
from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings
from services.scheduler.domain.api_config import parse_api_file
from services.scheduler.domain.api_config.spec import to_version
from services.scheduler.domain.model.batch import Cursor
from services.scheduler.domain.model.job import JobRecord, JobSpec, JobState, Tally
from services.scheduler.domain.model.options import Options

SETTINGS = KubernetesWorkerSettings(
    dequeuer_image="registry.example.com/dequeuer:1",
    scheduler_address="dns:///scheduler.cortex.svc:8889",
    public_url="http://gateway.cortex.svc",
)
CONTAINER: dict[str, Any] = {"name": "api", "image": "hello:1", "command": ["python", "app.py"]}
JOB_ID = "68a0d1c2b3e4f506"


def work(*containers: dict[str, Any], settings: dict[str, Any] | None = None, **more: Any) -> Work:
    """A job of two workers. `settings` are the operator's, beside the least; `more` are the API's."""
    pod = {"containers": [CONTAINER | container for container in containers or ({},)]}
    return of_api({"name": "hello", "kind": "BatchAPI", "pod": pod, **more}, settings)


def of_api(api: dict[str, Any], settings: dict[str, Any] | None = None) -> Work:
    """A job of this API."""
    (config,) = parse_api_file("cortex.yaml", yaml.safe_dump([api], allow_unicode=True).encode())
    told = msgspec.structs.replace(SETTINGS, **(settings or {}))
    return Work.of(told, "jobs", to_version(config, "0123456789", 1, 2), job(config.name), 7)


def job(api_name: str = "hello", workers: int = 2, **options: Any) -> JobRecord:
    """A job that was just submitted."""
    spec = JobSpec(JOB_ID, api_name, "v1", workers, 1, "", None, None, None, 1, "")
    return JobRecord(replace(spec, options=Options(**options)), JobState(), Tally(), Cursor(), 0)
