"""HTTP to one deployment: requests, answers read line by line, and errors as exceptions.

Answers are bytes here, because numbers such as `1e400` or `12345678901234567890` must survive being handed on.
"""

import contextlib
import json
import os
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import BadStatusLine, RemoteDisconnected
from urllib.parse import urlencode

import urllib3

from cortex.environments import Environment
from cortex.exceptions import CortexException, NotFound, Unreachable
from cortex.upload import Upload
from cortex.version import version

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0
"""A submission of 10 MiB onto a busy disk takes seconds; two minutes without a byte mean that nobody is there."""

RETRY_PAUSES_S = (0.1, 0.5, 1.0, 2.0)
"""Before a broken request is sent again."""

TOKEN_VARIABLE = "CORTEX_TOKEN"  # noqa: S105  # a name
"""Names who asks, to a deployment that lets in only those who carry a token."""

MISSING_KINDS = frozenset({"resources.api_not_deployed", "job.not_found"})


@dataclass(frozen=True)
class Request:
    """What to ask. `query` values that are None are left out."""

    method: str
    path: str
    query: Mapping[str, str | None] | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    idempotency_key: str | None = None
    """Makes it safe to ask again."""
    text_error: str | None = None
    """The kind of an error that is told as plain text."""

    @property
    def target(self) -> str:
        """Path and query."""
        given = {key: value for key, value in (self.query or {}).items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say who asks and what comes."""
        found = {"CortexAPIVersion": version(), "User-Agent": f"cortex-batch/{version()}"}
        if self.body is not None or self.method == "POST":
            found["Content-Type"] = self.content_type
        if self.idempotency_key is not None:
            found["Idempotency-Key"] = self.idempotency_key
        return found

    @property
    def repeatable(self) -> bool:
        """Whether asking again does no harm."""
        return self.method == "GET" or self.idempotency_key is not None


class Transport:
    """Connections to one deployment."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._pool = urllib3.PoolManager(retries=False, maxsize=4)

    def send(self, request: Request) -> bytes:
        """The answer's body. Raises `NotFound`, `CortexException` as the server put it, or `Unreachable`."""
        response = self._open(request, ANSWER_TIMEOUT_S)
        with self._wrapped_errors():
            return response.data

    def lines(self, request: Request) -> Iterator[bytes]:
        """The lines of an answer as they come, empty ones left out. Raises like `send`, in the middle too."""
        response = self._open(request, None)
        rest = b""
        try:
            with self._wrapped_errors():
                while piece := response.read1(1 << 16):
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from (line for line in whole if line.strip())
            if rest.strip():
                yield rest
        finally:
            response.close()

    def _open(self, request: Request, answer_timeout: float | None) -> urllib3.BaseHTTPResponse:
        """Send a request and read the answer's head. What may be repeated is, when the connection breaks.

        A gateway that is restarted keeps its address: what it had accepted breaks, what comes then waits for it.
        """
        for pause in RETRY_PAUSES_S if request.repeatable else ():
            try:
                return self._open_once(request, answer_timeout)
            except Unreachable as error:
                if error.kind != "client.connection_broken":
                    raise
            time.sleep(pause)
        return self._open_once(request, answer_timeout)

    def _open_once(self, request: Request, answer_timeout: float | None) -> urllib3.BaseHTTPResponse:
        with self._wrapped_errors():
            response = self._pool.request(
                request.method,
                self.environment.operator_endpoint + request.target,
                body=request.body,
                headers=self._headers(request),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=answer_timeout),
                preload_content=False,
                redirect=False,
            )
            if response.status >= 300:
                raise _failure(response, self._where, request.text_error)
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise CortexException("client.unexpected_answer", f"{self._where} is a web page: is the port right?")
        return response

    def upload(self, request: Request, body: Iterable[bytes]) -> bytes:
        """Send a body while it is made; the answer's body. Raises like `send`, and what making the body raises.

        It is sent once: what is made only once cannot be repeated.
        """
        url = urllib3.util.parse_url(self.environment.operator_endpoint + request.target)
        of_scheme = urllib3.connection.HTTPSConnection if url.scheme == "https" else urllib3.connection.HTTPConnection
        connection = of_scheme((url.host or "").strip("[]"), url.port, timeout=CONNECT_TIMEOUT_S)
        with Upload(connection, request.method, url.request_uri, self._headers(request), ANSWER_TIMEOUT_S) as sending:
            sending.feed(body)
            with self._wrapped_errors():
                response = sending.answer()
                if response.status >= 300:
                    raise _failure(response, self._where)
                return response.data

    def _headers(self, request: Request) -> dict[str, str]:
        """The request's headers and the user's token, which is for nobody who listens on the way."""
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return request.headers
        if not self.environment.operator_endpoint.startswith("https:") and not self.environment.is_local:
            message = f"{TOKEN_VARIABLE} is set, but {self._where} is not https: anyone on the way could read the token"
            raise CortexException("client.token_in_the_clear", message)
        return {**request.headers, "Authorization": f"Bearer {token}"}

    @property
    def _where(self) -> str:
        return f"{self.environment.operator_endpoint} (environment `{self.environment.name}`)"

    @contextlib.contextmanager
    def _wrapped_errors(self) -> Iterator[None]:
        try:
            yield
        except urllib3.exceptions.NameResolutionError as error:
            raise Unreachable("client.unreachable", f"{self._where}: there is no such host") from error
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise Unreachable("client.unreachable", self._nobody_there()) from error
        except urllib3.exceptions.SSLError as error:
            if isinstance(error.args[0], ssl.SSLEOFError | ssl.SSLZeroReturnError):  # gone in the middle: no distrust
                raise Unreachable("client.connection_broken", f"{self._where} broke the connection") from error
            raise CortexException("client.tls", f"no trusted connection to {self._where}: {error}") from error
        except urllib3.exceptions.TimeoutError as error:
            raise Unreachable("client.timeout", f"{self._where} took too long to answer") from error
        except urllib3.exceptions.ProtocolError as error:
            cause = error.args[-1]
            if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
                message = f"{self._where} does not speak HTTP; is that the port of gRPC, or of something else?"
                raise CortexException("client.not_http", message) from error
            raise Unreachable("client.connection_broken", f"{self._where} broke the connection: {cause}") from error
        except urllib3.exceptions.HTTPError as error:
            raise CortexException("client.request_failed", f"{self._where}: {error}") from error

    def _nobody_there(self) -> str:
        endpoint, name = self.environment.operator_endpoint, self.environment.name
        hint = ": is `cortex up` running?" if self.environment.is_local else ""
        return f"nothing answers at {endpoint}{hint} (environment `{name}`)"


def _failure(response: urllib3.BaseHTTPResponse, where: str, text_error: str | None = None) -> CortexException:
    status, body = response.status, response.data
    try:
        told = json.loads(body)
        kind, message = str(told["kind"]), str(told["message"])
    except (ValueError, TypeError, KeyError):
        text = body.decode(errors="replace").strip()
        if text_error is not None and status == 400 and response.headers.get("Content-Type", "").startswith("text/"):
            return CortexException(text_error, text)
        # not an answer of ours: a proxy's, or another program's
        said = f": {text.splitlines()[0][:200]}" if text else ""
        kind, message = "client.unexpected_answer", f"{where} answered status {status}{said}"
    if status in (502, 503, 504):
        return Unreachable(kind, message)
    if kind in MISSING_KINDS or (status == 404 and not kind.startswith("client.")):
        return NotFound(kind, message)
    return CortexException(kind, message)
