"""A real HTTP server that answers as a test tells it, for the client and the command line."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOB_ID = "69a1b2c3d4e5f607"


@dataclass(frozen=True)
class Reply:
    """An answer. A list of lines is sent in chunks, and `broken` ends it without its end; `none`: without its begin.

    With `after` it is given when so many bytes of the request's body were read, and the rest is not read any more.
    """

    body: Any = None
    status: int = 200
    lines: list[bytes] | None = None
    broken: bool = False
    none: bool = False
    after: int | None = None
    kept: bool = True
    """Whether what comes of the request's body is kept."""
    content_type: str = "application/json"


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    whole: bool = True
    """Whether the body's end came."""


@dataclass
class Server:
    """What to answer to `METHOD TARGET` (several: one after the other, the last again), and what was asked."""

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    chunks: "queue.SimpleQueue[bytes]" = field(default_factory=queue.SimpleQueue)
    """What came of bodies without a length, as it came; an empty one at the end, or where they break off."""

    def on(self, request: str, *replies: Reply) -> None:
        self.replies[request] = list(replies)

    def answer_to(self, method: str, target: str) -> Reply:
        replies = self.replies.get(f"{method} {target}", [Reply({"kind": "test.unknown", "message": target}, 404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            reply = server.answer_to(self.command, self.path)
            body, whole = self.read_body(reply)
            server.asked.append(Asked(self.command, self.path, dict(self.headers), body, whole))
            self.close_connection = self.close_connection or not whole or reply.none
            if reply.none or not (whole or reply.after is not None):
                return
            self.send_response(reply.status)
            if reply.lines is None:
                content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in reply.lines:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()
            if reply.broken:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def read_body(self, reply: Reply) -> tuple[bytes, bool]:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0)), True
            body = b""
            while reply.after is None or len(body) < reply.after:
                size = self.rfile.readline()
                chunk = self.rfile.read(int(size or b"0", 16))
                if reply.kept or not chunk:
                    server.chunks.put(chunk)
                    body += chunk
                if not chunk:
                    return body, size != b""
                self.rfile.readline()
            return body, False

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815  # the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def job_status(status: str = "running", *, done: int = 0, failed: int = 0, total: int | None = 10, **more: Any) -> Any:
    """A job as the gateway tells it."""
    state = {
        "job_id": JOB_ID,
        "api_name": "digits",
        "kind": "BatchAPI",
        "workers": 2,
        "config": None,
        "api_id": "v1",
        "timeout": None,
        "created_time": "2026-11-23T13:00:00.123456789Z",
        "start_time": "2026-11-23T13:00:00.123456789Z",
        "status": status,
        "batch_counts": {"pending": (total or 0) - done, "leased": 0, "succeeded": done - failed, "failed": failed},
        **({} if total is None else {"total_batch_count": total}),
        **({"worker_counts": {"ready": 2}} if status == "running" else {"end_time": "2026-11-23T13:01:05.5Z"}),
        **more,
    }
    average = 0.25 if done > failed else None
    return {
        "job_status": state,
        "endpoint": f"http://127.0.0.1:8888/digits?jobID={JOB_ID}",
        "api_spec": {"name": "digits"},
        "metrics": {
            "succeeded": done - failed,
            "failed": failed,
            "average_time_per_batch": average,
            "avg_time_per_batch": average,
        },
    }


def line(value: Any) -> bytes:
    """A line of an answer."""
    return json.dumps(value).encode() + b"\n"
