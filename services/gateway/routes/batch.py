"""Jobs: submit, watch, change and stop them, at `/batch/<api_name>` and at the endpoint of the API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cortex.batch.v1.batch_service_pb2 import GetApiRequest
from cortex.batch.v1.resources_pb2 import BatchApi
from services.common.errors import Category, CortexError
from services.gateway import body, job_json, problems, submission
from services.gateway.answers import Lines, as_json
from services.gateway.problems import HttpError, Problem
from services.gateway.routes import item_stream, query
from services.gateway.routes.headers import idempotency_key
from services.gateway.routes.item_stream import ItemStream
from services.gateway.scheduler import Scheduler

METHODS = ("DELETE", "GET", "PATCH", "POST")


@dataclass(frozen=True)
class Batch:
    """Handlers for the jobs of one API."""

    scheduler: Scheduler
    public_url: str
    stopping: asyncio.Event

    def routes(self) -> list[Route]:
        """`/batch/<api_name>`."""
        return [Route("/batch/{api_name}", self.by_name, methods=METHODS)]

    async def by_name(self, request: Request) -> Response:
        """A request that names the API."""
        return await self._handle(request, request.path_params["api_name"])

    async def by_endpoint(self, request: Request) -> Response:
        """A request to a path of the user's: an API may have it as its `networking.endpoint`."""
        path = request.url.path
        try:
            api = (await self.scheduler.api(GetApiRequest(endpoint=path))).api
        except CortexError as error:
            if error.category is not Category.NOT_FOUND:
                raise
            raise _nothing_there(path, self.public_url) from error
        return await self._handle(request, api.name)

    async def _handle(self, request: Request, api_name: str) -> Response:
        handlers: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
            "POST": self._submit,
            "GET": self._get,
            "HEAD": self._get,
            "PATCH": self._change,
            "DELETE": self._stop,
        }
        return await handlers[request.method](request, api_name)

    async def _submit(self, request: Request, api_name: str) -> Response:
        if item_stream.is_one(request):
            return await ItemStream(self.scheduler, self.stopping).submit(request, api_name)
        if query.flag(request, "dryRun"):
            return await self._dry_run(request, api_name)
        found = submission.parse(api_name, await body.read(request), request_id=idempotency_key(request))
        answer = await self.scheduler.submit(found.request)
        return as_json(job_json.submitted(answer.job, [*found.warnings, *answer.warnings]))

    async def _dry_run(self, request: Request, api_name: str) -> Response:
        """Text for people, errors too."""
        try:
            found = submission.parse(api_name, await body.read(request), dry_run=True)
            answer = await self.scheduler.submit(found.request)
        except body.BodyTooLarge as error:
            return body.DrainingResponse(f"{error.message}\n", 400, media_type="text/plain")
        except CortexError as error:
            problem = problems.of(error)
            status = problem.status if problem.status >= 500 else 400
            return PlainTextResponse(f"{problem.message}\n", status, problem.headers)
        more = [f"... and {answer.more_files} more"] if answer.more_files else []
        return PlainTextResponse("".join(f"{line}\n" for line in (*answer.files, *more, "validations passed")))

    async def _get(self, request: Request, api_name: str) -> Response:
        job_id = query.required(request, "jobID")
        watch = query.flag(request, "watch")
        found = await self.scheduler.job(api_name, job_id)
        if watch:
            return Lines(self._changes(api_name, job_id, found.api), self.stopping)
        return as_json(job_json.answer(found.job, found.api, self.public_url))

    async def _changes(self, api_name: str, job_id: str, api: BatchApi) -> AsyncIterator[dict[str, Any]]:
        async for job in self.scheduler.watch(api_name, job_id):
            yield job_json.answer(job, api, self.public_url)

    async def _change(self, request: Request, api_name: str) -> Response:
        job_id = query.required(request, "jobID")
        found = submission.parse_change(api_name, job_id, await body.read(request))
        api = (await self.scheduler.job(api_name, job_id)).api  # first: what reads may fail, and nothing has happened
        job = await self.scheduler.update(found.request)
        warnings = {"warnings": found.warnings} if found.warnings else {}
        return as_json(job_json.answer(job, api, self.public_url) | warnings)

    async def _stop(self, request: Request, api_name: str) -> Response:
        job_id = query.required(request, "jobID")
        await self.scheduler.stop(api_name, job_id)
        return as_json({"message": f"stopped job {job_id}"})


def _nothing_there(path: str, public_url: str) -> HttpError:
    message = f"nothing is served at {path}: no API has it as its endpoint; see {public_url}/docs for the routes"
    return HttpError(Problem(404, "endpoints.not_found", message))
