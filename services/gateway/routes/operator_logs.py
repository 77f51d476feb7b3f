"""A job's log for the `cortex` command line: `/logs` says where it is, `/streamlogs` sends it as it grows."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from cortex.batch.v1.batch_service_pb2 import GetApiRequest, TailLogsRequest
from services.common.errors import CortexError
from services.gateway.admission import Admission
from services.gateway.answers import as_json, send_text
from services.gateway.routes import query
from services.gateway.scheduler import Scheduler


@dataclass(frozen=True)
class OperatorLogs:
    """Handlers."""

    scheduler: Scheduler
    public_url: str
    admission: Admission
    stopping: asyncio.Event

    def routes(self) -> list[BaseRoute]:
        """The two routes."""
        return [
            Route("/logs/{api_name}", self.admission.admitted(self.logs)),
            Route("/streamlogs/{api_name}", self.admission.admitted(_needs_websocket)),
            WebSocketRoute("/streamlogs/{api_name}", self.admission.admitted_socket(self.stream)),
        ]

    async def logs(self, request: Request) -> Response:
        """Where a job's log is."""
        name, job_id = await self._job(request)
        return as_json({"log_url": f"{self.public_url}/batch/{name}/{job_id}/logs"})

    async def stream(self, socket: WebSocket) -> None:
        """A job's log: all that is there, then what is written, until its workers are gone."""
        name, job_id = await self._job(socket)
        wanted = TailLogsRequest(api_name=name, job_id=job_id, follow=True)
        await send_text(socket, self._texts(wanted), self.stopping)

    async def _texts(self, wanted: TailLogsRequest) -> AsyncIterator[str]:
        async for line in self.scheduler.logs(wanted):
            yield f"{_for_people(line.message)}\n"

    async def _job(self, connection: HTTPConnection) -> tuple[str, str]:
        """The API and the job that are asked for; they are there."""
        name, job_id = connection.path_params["api_name"], query.text(connection, "jobID")
        if not job_id:
            await self.scheduler.api(GetApiRequest(name=name))  # its absence matters more
            raise CortexError(
                "endpoints.logs_job_id_required",
                f"a job's log needs the job: {connection.url.path}?jobID=...; `cortex get {name}` lists the latest",
            )
        await self.scheduler.job(name, job_id)
        return name, job_id


async def _needs_websocket(_request: Request) -> Response:
    text = "this route is a websocket; GET /batch/<api>/<job>/logs?follow=true has the same as lines of JSON"
    raise CortexError("endpoints.websocket_required", text)


def _for_people(line: str) -> str:
    """A line as Cortex shows it: of a record in JSON, only what it says and the exception."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line
    said = [record.get(key) for key in ("message", "exc_info")]
    if not isinstance(said[0], str):
        return line
    return "\n".join(text for text in said if isinstance(text, str) and text) or said[0]
