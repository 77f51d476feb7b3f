"""An API as the JSON that the `cortex` command line decodes."""

from collections.abc import Iterable
from typing import Any

import msgspec

from cortex.batch.v1.batch_service_pb2 import DeployResult, GetApiResponse
from cortex.batch.v1.resources_pb2 import BatchApi, Job
from services.gateway import job_json


def deployed(result: DeployResult, public_url: str) -> dict[str, Any]:
    """What deploying one API did."""
    api = {"spec": _spec(result.api), "endpoint": public_url + result.api.endpoint}
    return {"api": api if result.HasField("api") else None, "message": result.message, "error": ""}


def listed(api: BatchApi, jobs: Iterable[Job]) -> dict[str, Any]:
    """An API in the list of all."""
    return {"metadata": _metadata(api), "batch_job_statuses": [job_json.status(job) for job in jobs]}


def described(found: GetApiResponse, jobs: Iterable[Job], public_url: str) -> dict[str, Any]:
    """One API with its versions."""
    return listed(found.api, jobs) | {
        "spec": _spec(found.api),
        "endpoint": public_url + found.api.endpoint,
        "dashboard_url": "",
        "api_versions": [
            {"api_id": version.api_id, "last_updated": version.last_updated.seconds} for version in found.versions
        ],
    }


def _spec(api: BatchApi) -> msgspec.Raw:
    return msgspec.Raw(api.spec_json.encode())


def _metadata(api: BatchApi) -> dict[str, Any]:
    return {"name": api.name, "kind": "BatchAPI", "id": api.api_id, "last_updated": api.last_updated.seconds}
