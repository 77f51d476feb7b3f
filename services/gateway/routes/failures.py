"""A job's batches with their items, and running the failed ones again."""

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cortex.batch.v1.batch_service_pb2 import ListBatchesRequest
from cortex.batch.v1.resources_pb2 import Batch
from services.gateway import body, job_json, problems, submission
from services.gateway.answers import as_json
from services.gateway.routes import query
from services.gateway.routes.headers import idempotency_key
from services.gateway.scheduler import Scheduler

_STATES = {
    "pending": [Batch.STATE_PENDING],
    "leased": [Batch.STATE_LEASED],
    "succeeded": [Batch.STATE_SUCCEEDED],
    "failed": [Batch.STATE_FAILED],
    "split": [Batch.STATE_SPLIT],
    "": [],
}
_PAGE_SIZE = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Failures:
    """Handlers."""

    scheduler: Scheduler

    def routes(self) -> list[Route]:
        """Below `/batch/<api_name>/<job_id>`."""
        return [
            Route("/batch/{api_name}/{job_id}/batches", self.batches),
            Route("/batch/{api_name}/{job_id}/retry", self.retry, methods=["POST"]),
        ]

    async def batches(self, request: Request) -> Response:
        """A page of batches."""
        state = query.text(request, "state")
        if state not in _STATES:
            raise problems.bad_query(
                "state", state, "pending, leased, succeeded, failed or split (or missing: all but split)"
            )
        size = query.text(request, "page_size")
        if size and (not _PAGE_SIZE.fullmatch(size) or not int(size)):
            raise problems.bad_query("page_size", size, "a whole number from 1")
        wanted = ListBatchesRequest(
            api_name=request.path_params["api_name"],
            job_id=request.path_params["job_id"],
            states=_STATES[state],
            page_size=int(size or 0),
            page_token=query.text(request, "page_token"),
        )
        page = await self.scheduler.batches(wanted)
        return as_json(
            {"batches": [job_json.batch(each) for each in page.batches], "next_page_token": page.next_page_token}
        )

    async def retry(self, request: Request) -> Response:
        """Run the failed batches again."""
        api_name, job_id = request.path_params["api_name"], request.path_params["job_id"]
        key = idempotency_key(request)
        found = submission.parse_retry(api_name, job_id, await body.read(request), request_id=key)
        answer = await self.scheduler.retry(found.request)
        return as_json(job_json.submitted(answer.job, [*found.warnings, *answer.warnings]))
