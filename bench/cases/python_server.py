"""A container as people write them, starlette on uvicorn with JSON parsing: end to end, beside wrk.

One worker, eight batches at once; wrk with one thread and eight connections. The share is of what wrk gets from the
same server alone, while the system shares the machine's cores with it.
"""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

from bench.containers import FastServer, starlette_server
from bench.dispatch import wrk
from bench.jobs import rounds_of
from bench.report import Figure
from bench.system import running

BATCHES = 10_000
ITEM = '"' + "x" * 1020 + '"'
CONCURRENCY = 8
ROUNDS = 2
WRK_SECONDS = 2


def figures() -> Iterator[Figure]:
    """The system's rate, and wrk's where it is installed."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        command = starlette_server(Path(directory))
        system.deploy([*command, "$(CORTEX_PORT)"], CONCURRENCY)
        server = FastServer(tuple(command), Path(directory))
        rounds = rounds_of(system, server, [ITEM] * BATCHES, 1, ROUNDS)
    rate = rounds.rate
    yield Figure("python_server.rate", "end to end against starlette, one worker: in the middle", rate, "batches/s")
    yield Figure(
        "python_server.cpu", "  CPU per 1000: scheduler + dequeuer", rounds.cpu_per_1000("scheduler", "dequeuer"), "s"
    )
    if shutil.which("wrk") is None:
        print("wrk is not installed: no share of it", end=" ", file=sys.stderr)
        return
    limit = _wrk_rate()
    yield Figure("python_server.wrk", "  wrk against that server alone", limit, "requests/s")
    yield Figure("python_server.share_of_wrk", "  share of wrk", 100 * rate / limit, "%")


def _wrk_rate() -> float:
    with tempfile.TemporaryDirectory() as directory:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        server = subprocess.Popen([*starlette_server(Path(directory)), str(port)])
        try:
            _await_listening(port)
            with redirect_stdout(io.StringIO()):
                return median(wrk(port, WRK_SECONDS, CONCURRENCY) for _ in range(3))
        finally:
            server.terminate()
            server.wait()


def _await_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server does not start")
