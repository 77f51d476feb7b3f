"""What the `cortex` command line asks an operator: deploy, get and delete APIs. Logs are in `operator_logs.py`."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cortex.batch.v1.batch_service_pb2 import DeployApisRequest, GetApiRequest
from cortex.batch.v1.resources_pb2 import BatchApi, Job
from services.common.errors import CortexError
from services.gateway import api_json, body
from services.gateway.admission import Admission
from services.gateway.answers import as_json
from services.gateway.routes import query
from services.gateway.scheduler import Scheduler

MAX_STATUSES = 10
"""Jobs shown with an API."""
_SEARCHED = 100
"""Newest jobs among which those of one version are looked for."""


@dataclass(frozen=True)
class Operator:
    """Handlers."""

    scheduler: Scheduler
    public_url: str
    admission: Admission

    def routes(self) -> list[Route]:
        """The operator's routes."""
        admitted = self.admission.admitted
        return [
            Route("/verifycortex", _verify),
            Route("/info", admitted(self.info, versioned=False)),
            Route("/deploy", admitted(self.deploy), methods=["POST"]),
            Route("/get", admitted(self.get_all)),
            Route("/get/{api_name}", admitted(self.get)),
            Route("/get/{api_name}/{api_id}", admitted(self.get_version)),
            Route("/delete/{api_name}", admitted(self.delete), methods=["DELETE"]),
            Route("/describe/{api_name}", admitted(self.not_for_batch)),
            Route("/refresh/{api_name}", admitted(self.not_for_batch), methods=["POST"]),
        ]

    async def info(self, _request: Request) -> Response:
        """What is known of the cluster: its version. The command line compares it with its own."""
        return as_json(
            {
                "cluster_config": {"api_version": self.admission.version},
                "worker_node_infos": [],
                "operator_node_infos": [],
                "num_pending_replicas": 0,
            }
        )

    async def deploy(self, request: Request) -> Response:
        """Deploy the APIs of an uploaded file."""
        file_name = query.required(request, "configFileName")
        force = query.flag(request, "force")
        config = await _uploaded(request, "config", file_name)
        answer = await self.scheduler.deploy(DeployApisRequest(file_name=file_name, config=config, force=force))
        return as_json([api_json.deployed(result, self.public_url) for result in answer.results])

    async def get_all(self, _request: Request) -> Response:
        """All APIs, each with its running jobs, else its latest."""
        apis = await self.scheduler.apis()
        running: defaultdict[str, list[Job]] = defaultdict(list)
        async for job in self.scheduler.jobs(running_only=True):
            running[job.api_name].append(job)
        async with asyncio.TaskGroup() as tasks:
            latest = {
                api.name: tasks.create_task(self.scheduler.latest_jobs(api.name, 1))
                for api in apis
                if api.name not in running
            }
        jobs = running | {name: task.result() for name, task in latest.items()}
        return as_json([api_json.listed(api, jobs[api.name]) for api in apis])

    async def get(self, request: Request) -> Response:
        """One API."""
        name = request.path_params["api_name"]
        found = await self.scheduler.api(GetApiRequest(name=name))
        jobs = await self.scheduler.latest_jobs(name, MAX_STATUSES)
        return as_json([api_json.described(found, jobs, self.public_url)])

    async def get_version(self, request: Request) -> Response:
        """One version of an API, with those of its jobs that are not long ago."""
        name, api_id = request.path_params["api_name"], request.path_params["api_id"]
        found = await self.scheduler.api(GetApiRequest(name=name, api_id=api_id))
        jobs = [job for job in await self.scheduler.latest_jobs(name, _SEARCHED) if job.api_id == api_id]
        return as_json([api_json.described(found, jobs[:MAX_STATUSES], self.public_url)])

    async def delete(self, request: Request) -> Response:
        """Delete an API. `keepCache` has nothing to keep here."""
        query.flag(request, "keepCache")
        name = request.path_params["api_name"]
        await self.scheduler.delete(name)
        return as_json({"message": f"deleting {name}"})

    async def not_for_batch(self, request: Request) -> Response:
        """What only other kinds of APIs can do."""
        found: BatchApi = (await self.scheduler.api(GetApiRequest(name=request.path_params["api_name"]))).api
        operation = request.url.path.split("/")[1]
        raise CortexError(
            "resources.operation_is_only_supported_for_kind",
            f"{operation} is only supported for RealtimeAPI and AsyncAPI; {found.name} is a BatchAPI",
        )


async def _verify(_request: Request) -> Response:
    return as_json({})


async def _uploaded(request: Request, name: str, file_name: str) -> bytes:
    """A form's file, which its user knows as `file_name`.

    Raises `endpoints.form_file_must_be_provided` when it is missing or empty.
    """
    uploaded = await body.read(request)
    try:
        form = await MultiPartParser(request.headers, _at_once(uploaded)).parse()
    except (MultiPartException, KeyError):  # KeyError: the content type has no boundary
        form = None
    file = form.get(name) if form is not None else None
    content = await file.read() if isinstance(file, UploadFile) else b""
    if form is not None:
        await form.close()
    if not content:
        problem = "the file is empty" if isinstance(file, UploadFile) else "the file is missing"
        message = f"{file_name}: {problem}; the request must be a form (multipart/form-data) with the file `{name}`"
        raise CortexError("endpoints.form_file_must_be_provided", message)
    return content


async def _at_once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
