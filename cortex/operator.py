"""The HTTP routes of a deployment, one method each. Arguments and answers are raw JSON.

`watch` is more than a route: it outlives a restart of the server, because a job does.
"""

import json
import time
from collections.abc import Iterator
from urllib.parse import quote

from urllib3.filepost import encode_multipart_formdata

from cortex.exceptions import CortexException, Unreachable
from cortex.transport import Request, Transport

IN_PROGRESS = frozenset({"pending", "enqueuing", "running", "unknown"})
"""The statuses of a job that is not over."""

PATIENCE_S = 30.0
"""How long `watch` waits for a server that went away."""


class Operator:
    """One deployment, by its routes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deploy(self, config: bytes, file_name: str, *, force: bool) -> bytes:
        """Deploy a configuration file. The answer is a list, one entry an API."""
        form, content_type = encode_multipart_formdata({"config": (file_name, config, "application/x-yaml")})
        query = {"force": str(force).lower(), "configFileName": file_name}
        return self._transport.send(Request("POST", "/deploy", query, form, content_type))

    def apis(self) -> bytes:
        """All APIs, each with its running jobs, else its latest."""
        return self._transport.send(Request("GET", "/get"))

    def api(self, name: str) -> bytes:
        """One API: a list with one entry."""
        return self._transport.send(Request("GET", f"/get/{_segment(name)}"))

    def delete(self, name: str, *, keep_cache: bool) -> bytes:
        """Delete an API and stop its jobs."""
        query = {"keepCache": str(keep_cache).lower()}
        return self._transport.send(Request("DELETE", f"/delete/{_segment(name)}", query))

    def refresh(self, name: str, *, force: bool) -> bytes:
        """Restart an API's replicas, where its kind has any."""
        return self._transport.send(Request("POST", f"/refresh/{_segment(name)}", {"force": str(force).lower()}))

    def submit(self, api_name: str, body: bytes) -> bytes:
        """Submit a job."""
        return self._transport.send(Request("POST", f"/batch/{_segment(api_name)}", body=body))

    def job(self, api_name: str, job_id: str) -> bytes:
        """A job as it is now."""
        return self._transport.send(Request("GET", f"/batch/{_segment(api_name)}", {"jobID": job_id}))

    def batches(self, api_name: str, job_id: str, *, state: str | None, page_size: int) -> Iterator[bytes]:
        """A job's batches in one state, or all: page by page, as they are asked for."""
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/batches"
        token: str | None = None
        while token != "":
            query = {"state": state, "page_size": str(page_size), "page_token": token}
            page = self._transport.send(Request("GET", path, query))
            yield page
            token = str(json.loads(page)["next_page_token"])

    def retry(self, api_name: str, job_id: str, *, workers: int | None) -> bytes:
        """Run a job's failed batches again, as a new job."""
        body = json.dumps({} if workers is None else {"workers": workers}).encode()
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/retry"
        return self._transport.send(Request("POST", path, body=body))

    def stop(self, api_name: str, job_id: str) -> bytes:
        """Stop a job."""
        return self._transport.send(Request("DELETE", f"/batch/{_segment(api_name)}", {"jobID": job_id}))

    def trace(self, api_name: str, job_id: str) -> bytes:
        """A job's trace."""
        return self._transport.send(Request("GET", f"/batch/{_segment(api_name)}/{_segment(job_id)}/trace"))

    def logs(self, api_name: str, job_id: str, *, follow: bool) -> Iterator[bytes]:
        """A job's log, a line each; with `follow` until the job is over."""
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/logs"
        for line in self._transport.lines(Request("GET", path, {"follow": "true" if follow else None})):
            if line.startswith(b'{"kind"'):  # trouble in the middle: log lines have no kind
                raise _trouble(json.loads(line))
            yield line

    def watch(self, api_name: str, job_id: str) -> Iterator[bytes]:
        """The job now, and again whenever it changed, to its end.

        Where the server goes away in the middle, it is asked again for `PATIENCE_S` seconds.
        """
        request = Request("GET", f"/batch/{_segment(api_name)}", {"jobID": job_id, "watch": "true"})
        started, last_heard = False, time.monotonic()
        while True:
            trouble = Unreachable("client.connection_broken", f"the server stopped telling about job {job_id}")
            try:
                for line in self._transport.lines(request):
                    started, last_heard = True, time.monotonic()
                    yield line
                    if _status(line) not in IN_PROGRESS:
                        return
            except Unreachable as error:
                trouble = error
            if not started or time.monotonic() - last_heard > PATIENCE_S:
                raise trouble
            time.sleep(0.2)  # the server is being restarted, and there is no event that says when it is back


def _segment(name: str) -> str:
    return quote(name, safe="")


def _status(line: bytes) -> str:
    """The status in a line of `watch`; raises what the line says instead of one."""
    told = json.loads(line)
    if "job_status" in told:
        return str(told["job_status"]["status"])
    raise _trouble(told)


def _trouble(told: dict[str, str]) -> CortexException:
    """What a line says that stands for an error in the middle of an answer."""
    kind, message = told.get("kind", "client.unexpected_answer"), told.get("message", "an answer without a status")
    failure = Unreachable if kind == "system.unavailable" else CortexException
    return failure(kind, message)
