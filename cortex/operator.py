"""The HTTP routes of a deployment, one method each. Arguments and answers are raw JSON.

`watch` and `results` are more than routes: they outlive a restart of the server, because a job does.
"""

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote

from urllib3.filepost import encode_multipart_formdata

from cortex.exceptions import CortexException, Unreachable
from cortex.transport import Request, Transport

IN_PROGRESS = frozenset({"pending", "enqueuing", "running", "unknown"})
"""The statuses of a job that is not over."""

PATIENCE_S = 30.0
"""How long a server that went away in the middle is waited for."""

_BATCH = re.compile(rb'\{"batch": ?(\d+)')
"""How a line of results begins."""

_LINE = re.compile(r"\bline (\d+)\b")


class Operator:
    """One deployment, by its routes.

    What makes a job takes an `idempotency_key`: the same key gives the same job. Where none is given, one is made, so
    that a connection which breaks cannot make the job twice.
    """

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

    def submit(self, api_name: str, body: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Submit a job."""
        path = f"/batch/{_segment(api_name)}"
        return self._transport.send(Request("POST", path, body=body, idempotency_key=_or_new(idempotency_key)))

    def submit_stream(
        self, api_name: str, head: bytes, lines: Iterable[bytes], *, idempotency_key: str | None = None
    ) -> bytes:
        """Submit a job of items that are sent as they come, once: a line each; the pieces may be cut anywhere.

        `head` is a line too, the object of the job's other fields. What is refused is named by its number in `lines`.
        """
        path, media_type = f"/batch/{_segment(api_name)}", "application/x-ndjson"
        request = Request("POST", path, content_type=media_type, idempotency_key=_or_new(idempotency_key))
        try:
            return self._transport.upload(request, itertools.chain([head], lines))
        except Unreachable as error:
            if error.kind != "client.connection_broken":
                raise
            fate = "a job that had begun ends as `enqueue_failed`, unless all of its items had arrived"
            raise Unreachable(error.kind, f"{error.message}; {fate}: look at the API's latest job") from error
        except CortexException as error:
            raise type(error)(error.kind, _LINE.sub(_without_head, error.message, count=1)) from error

    def dry_run(self, api_name: str, body: bytes) -> Iterator[bytes]:
        """Check a submission and accept nothing: the selected files, a line each, and a last line that all is well."""
        path, query = f"/batch/{_segment(api_name)}", {"dryRun": "true"}
        return self._transport.lines(Request("POST", path, query, body, text_error="client.dry_run"))

    def job(self, api_name: str, job_id: str) -> bytes:
        """A job as it is now."""
        return self._transport.send(Request("GET", f"/batch/{_segment(api_name)}", {"jobID": job_id}))

    def update(self, api_name: str, job_id: str, changes: Mapping[str, object]) -> bytes:
        """Change a running job: its `workers`, or whether it is `paused`. The job as it is then."""
        path, body = f"/batch/{_segment(api_name)}", json.dumps(changes).encode()
        return self._transport.send(Request("PATCH", path, {"jobID": job_id}, body))

    def batches(self, api_name: str, job_id: str, *, state: str | None, page_size: int) -> Iterator[bytes]:
        """A job's batches in one state, or all: page by page, as they are asked for."""
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/batches"
        token: str | None = None
        while token != "":
            query = {"state": state, "page_size": str(page_size), "page_token": token}
            page = self._transport.send(Request("GET", path, query))
            yield page
            token = str(json.loads(page)["next_page_token"])

    def retry(self, api_name: str, job_id: str, *, workers: int | None, idempotency_key: str | None = None) -> bytes:
        """Run a job's failed batches again, as a new job."""
        body = json.dumps({} if workers is None else {"workers": workers}).encode()
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/retry"
        return self._transport.send(Request("POST", path, body=body, idempotency_key=_or_new(idempotency_key)))

    def stop(self, api_name: str, job_id: str) -> bytes:
        """Stop a job."""
        return self._transport.send(Request("DELETE", f"/batch/{_segment(api_name)}", {"jobID": job_id}))

    def trace(self, api_name: str, job_id: str) -> bytes:
        """A job's trace."""
        return self._transport.send(Request("GET", f"/batch/{_segment(api_name)}/{_segment(job_id)}/trace"))

    def logs(self, api_name: str, job_id: str, *, follow: bool) -> Iterator[bytes]:
        """A job's log, a line each; with `follow` until the job is over."""
        return self._lines_of(api_name, job_id, "logs", follow=follow)

    def results(self, api_name: str, job_id: str, *, follow: bool) -> Iterator[bytes]:
        """A job's kept replies by batch, a line each: `batch`, `reply`; with `follow` until the job is over.

        Where the server goes away in the middle, it is asked for the rest.
        """
        following = 0

        def rest() -> Iterator[bytes]:
            return self._lines_of(api_name, job_id, "results", follow=follow, first=following)

        for line in self._patiently(rest):
            if told := _BATCH.match(line):
                following = int(told[1]) + 1
            yield line

    def errors(self, api_name: str, job_id: str) -> Iterator[bytes]:
        """A job's failed batches, a line each."""
        return self._lines_of(api_name, job_id, "errors", follow=False)

    def _lines_of(self, api_name: str, job_id: str, what: str, *, follow: bool, first: int = 0) -> Iterator[bytes]:
        path = f"/batch/{_segment(api_name)}/{_segment(job_id)}/{what}"
        query = {"follow": "true" if follow else None, "first": str(first) if first else None}
        for line in self._transport.lines(Request("GET", path, query)):
            if line.startswith(b'{"kind"'):  # trouble in the middle: no line of these has a kind
                raise _trouble(json.loads(line))
            yield line

    def watch(self, api_name: str, job_id: str) -> Iterator[bytes]:
        """The job now, and again whenever it changed, to its end.

        Where the server goes away in the middle, or its scheduler is away, it is asked again for `PATIENCE_S` seconds.
        """
        return self._patiently(lambda: self._watched(api_name, job_id))

    def _watched(self, api_name: str, job_id: str) -> Iterator[bytes]:
        request = Request("GET", f"/batch/{_segment(api_name)}", {"jobID": job_id, "watch": "true"})
        for line in self._transport.lines(request):
            over = _status(line) not in IN_PROGRESS
            yield line
            if over:
                return
        raise Unreachable("client.connection_broken", f"the server stopped telling about job {job_id}")

    def _patiently(self, lines: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """The lines, and those of asking again for `PATIENCE_S` seconds while the server is away.

        One that never answered is not waited for: its address may be wrong.
        """
        answers, last_heard = False, time.monotonic()
        while True:
            try:
                for line in lines():
                    answers, last_heard = True, time.monotonic()
                    yield line
                return
            except Unreachable as error:
                answers = answers or error.kind == "system.unavailable"  # the gateway's word: its scheduler is away
                if not answers or time.monotonic() - last_heard > PATIENCE_S:
                    raise
            time.sleep(0.2)  # the server is being restarted, and there is no event that says when it is back


def _or_new(idempotency_key: str | None) -> str:
    """A key that is given is sent as it is, an empty one too: the server says that it is none."""
    return os.urandom(16).hex() if idempotency_key is None else idempotency_key


def _without_head(line: re.Match[str]) -> str:
    """The server counts the head as line 1."""
    return f"line {max(1, int(line[1]) - 1)}"


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
