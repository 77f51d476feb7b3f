"""What `server.c` is, in Python, for machines without a C compiler: same arguments, same answers, slower."""

import asyncio
import os
import sys
import time
from typing import cast

import httptools
import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nbad"


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, completions: int | None, delay_s: float, refuse: bytes) -> None:
        self._completions = completions
        self._delay_s = delay_s
        self._refuse = refuse
        self._answer = ANSWER
        self._parser = httptools.HttpRequestParser(self)
        self._path = self._job = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-cortex-job-id":
            self._job = value

    def on_body(self, body: bytes) -> None:
        if self._refuse and self._refuse in body:
            self._answer = REFUSAL

    def on_message_complete(self) -> None:
        if self._path != b"/on-job-complete":
            time.sleep(self._delay_s)
            self._transport.write(self._answer)
            self._answer = ANSWER
            return
        now = time.time_ns()
        self._transport.write(ANSWER)
        if self._completions is not None:
            os.write(self._completions, b"%s %d\n" % (self._job, now))


async def serve(port: int, completions: str, delay_s: float, refuse: bytes) -> None:
    """Serve until killed."""
    fd = os.open(completions, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if completions else None
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(fd, delay_s, refuse), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    _, PORT, *REST = sys.argv
    COMPLETIONS, DELAY_MS, REFUSE = (*REST, *("", "0", "")[len(REST) :])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(PORT), COMPLETIONS, int(DELAY_MS) / 1000, REFUSE.encode()))
