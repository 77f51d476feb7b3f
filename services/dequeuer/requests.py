"""The bytes of the requests that a container gets."""

from importlib.metadata import version
from urllib.parse import quote

_AGENT = f"cortex-batch/{version('cortex-batch')}"


class PostRequests:
    """Builds POSTs to one path, of which only trace context, length and body change."""

    def __init__(self, path: str, port: int, job_id: str) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\n"
            f"Host: localhost:{port}\r\n"
            f"User-Agent: {_AGENT}\r\n"
            "Accept: */*\r\n"
            "Content-Type: application/json\r\n"
            f"X-Cortex-Job-ID: {job_id}\r\n"
        ).encode()

    def build(self, body: bytes, traceparent: str) -> bytes:
        """One request. `traceparent` is left out when empty."""
        trace = f"traceparent: {traceparent}\r\n" if traceparent else ""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, trace.encode(), len(body), body)


def get_request(path: str, port: int) -> bytes:
    """A probe's question, for a connection of its own."""
    target = quote(path, safe="/?&=%:;@+$,!~*'()[]")
    return (
        f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: {_AGENT} (probe)\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()
