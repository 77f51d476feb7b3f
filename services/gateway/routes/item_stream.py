"""A submission whose items come as a stream: `Content-Type: application/x-ndjson`, a JSON value on each line.

What the job is to be stands in the query, and then every line is an item; or, without `workers` there, in the first
line. The lines go on to the scheduler as they come and no faster than it takes them. It refuses a bad one at once, and
so does the answer here, though the client may still be sending.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cortex.batch.v1.batch_service_pb2 import SubmitJobStreamRequest, SubmitJobStreamResponse
from services.common.errors import Category, CortexError
from services.gateway import fields, job_json, problems, submission
from services.gateway.body import DrainingResponse, Stream
from services.gateway.routes import query
from services.gateway.routes.headers import idempotency_key
from services.gateway.scheduler import Scheduler, StreamedJob
from services.gateway.submission import StreamHead

MEDIA_TYPE = "application/x-ndjson"
_IDENTITY = frozenset({"", "identity"})
_PARAMETERS = frozenset({"dryRun", *submission.QUERY_FLAGS, *submission.QUERY_NUMBERS})
_STOPPING_DRAIN_S = 1.0
"""A gateway that is being stopped has no more time for clients that still send."""


def is_one(request: Request) -> bool:
    """Whether a submission's body is a stream of items."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


@dataclass(frozen=True)
class ItemStream:
    """Takes streams of items."""

    scheduler: Scheduler
    stopping: asyncio.Event

    async def submit(self, request: Request, api_name: str) -> Response:
        """The answer to a submission, when every item is on disk."""
        lines = Stream(request)
        try:
            if query.flag(request, "dryRun"):
                text = "a stream of items cannot be checked without submitting it: leave dryRun out, or use item_list"
                return self._answer(lines, f"{text}\n".encode(), 400, media_type="text/plain")
            head = await _head(request, lines, api_name)
            answer = await self._unless_stopped(lines, _messages(head.request, lines))
        except CortexError as error:
            problem = problems.of(error)
            return self._answer(lines, problem.json(), problem.status, problem.headers)
        job = job_json.submitted(answer.job, [*head.warnings, *answer.warnings])
        return self._answer(lines, msgspec.json.encode(job))

    async def _unless_stopped(
        self, lines: Stream, messages: AsyncIterator[SubmitJobStreamRequest]
    ) -> SubmitJobStreamResponse:
        """Submit, unless the gateway is to stop while the client still sends."""
        job = StreamedJob()
        submitting = asyncio.create_task(self.scheduler.submit_stream(messages, job))
        stopped = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({submitting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if submitting.done() or lines.over:
                return await submitting
            text = "the gateway is being stopped, so the stream is cut off"
            raise job.after(CortexError("system.unavailable", text, Category.UNAVAILABLE))
        finally:
            submitting.cancel()
            stopped.cancel()
            await asyncio.wait({submitting, stopped})

    def _answer(
        self,
        lines: Stream,
        body: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Response:
        if lines.over:
            return Response(body, status, headers, media_type)
        answer = DrainingResponse(body, status, headers, media_type)
        if self.stopping.is_set():
            answer.drain_s = _STOPPING_DRAIN_S
        return answer


async def _head(request: Request, lines: Stream, api_name: str) -> StreamHead:
    """What the job is to be, and what was passed over in finding out."""
    request_id = idempotency_key(request)
    encoding = request.headers.get("content-encoding", "")
    if encoding.lower() not in _IDENTITY:
        text = f"the header Content-Encoding is {encoding!r}: send the lines as they are, without an encoding"
        raise CortexError("endpoints.invalid_header", text)
    unknown = fields.warnings([f"?{name}" for name in request.query_params if name not in _PARAMETERS])
    given = {name: value for name in submission.QUERY_NUMBERS if (value := query.text(request, name))}
    for name in submission.QUERY_FLAGS:
        if query.flag(request, name):
            given[name] = "true"
    if "workers" in given:
        head = submission.parse_query(api_name, given, request_id=request_id)
    else:
        head = submission.parse_first_line(api_name, await lines.first_line(), request_id=request_id)
        unknown += [f"?{name}: ignored, the first line says what the job is" for name in given]
    return StreamHead(head.request, [*unknown, *head.warnings])


async def _messages(head: SubmitJobStreamRequest, lines: Stream) -> AsyncIterator[SubmitJobStreamRequest]:
    yield head
    async for chunk in lines.chunks():
        yield SubmitJobStreamRequest(ndjson=chunk)
