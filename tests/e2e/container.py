"""A user's container for the journeys: a plain web server that notes every batch it has done.

Each answered batch is one line of its file in NOTES: `{"items": [...], "job": ..., "traceparent": ...}`, on disk before
the answer, which is `{"done": [...]}` with the items. `COMPLETED` in NOTES holds the calls of /on-job-complete. What a
batch holds decides how it is answered: the item "fail" gives a 500, "hang" never answers, "close" closes the
connection, "exit" ends the process, "eat" takes memory without end, and {"sleep": seconds} takes its time. Where NEXT
is a URL, the completed job's specification has its `config` submitted there, before the call is answered.
"""

import json
import os
import secrets
import signal
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NOTES = Path(os.environ["NOTES"])
ME = secrets.token_hex(8)  # pids repeat: a sandbox has its own


def note(name: str, entry: object) -> None:
    with (NOTES / name).open("a") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # status, headers and body leave together

    def do_GET(self) -> None:
        self.answer(200 if os.environ.get("READY", "yes") == "yes" else 503)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/on-job-complete":
            spec = json.loads(Path("/cortex/spec/job.json").read_text())
            note("COMPLETED", {"body": json.loads(body), "spec": spec, "job": self.headers["X-Cortex-Job-ID"]})
            if url := os.environ.get("NEXT"):
                submission = json.dumps(spec["config"]).encode()
                with urllib.request.urlopen(urllib.request.Request(url, submission)) as answer:
                    note("CHAINED", json.load(answer))
            return self.answer(200)
        items = json.loads(body)
        for item in items:
            if item == "fail":
                return self.answer(500)
            if item == "hang":
                time.sleep(3600)
            if item == "close":
                self.close_connection = True
                return None
            if item == "exit":
                os._exit(7)
            if item == "eat":
                hoard = []
                while True:
                    hoard.append(b"x" * (8 << 20))
            if isinstance(item, dict) and "sleep" in item:
                time.sleep(item["sleep"])
        note(
            ME,
            {"items": items, "job": self.headers["X-Cortex-Job-ID"], "traceparent": self.headers["traceparent"]},
        )
        return self.answer(200, json.dumps({"done": items}).encode())

    def answer(self, status: int, body: bytes = b"ok") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # as the first process of a container it has no other end
    print("serving", os.environ["CORTEX_PORT"], flush=True)
    if os.environ.get("START") == "exit":
        print("cannot load the model", file=sys.stderr, flush=True)
        sys.exit(3)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", os.environ["CORTEX_PORT"]))), Handler).serve_forever()
