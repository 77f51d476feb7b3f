"""How fast batches reach a container: the dequeuer's delivery against a real Python server, beside wrk if installed.

    python -m bench.dispatch [BATCHES] [CONCURRENCY]

Bodies are 1 KiB of JSON, which the server (starlette on uvicorn) parses. CPU-s are those of the client process alone.
"""

import asyncio
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from cortex.batch.v1.worker_service_pb2 import WorkRequest
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.telemetry import start
from services.dequeuer.deaths import Deaths
from services.dequeuer.delivery import Delivery
from services.dequeuer.flow import Flow
from services.dequeuer.lease import Lease
from services.dequeuer.results import Reports
from services.dequeuer.spans import Spans

BODY = b'["' + b"x" * 1020 + b'"]'
WINDOW = 256

SERVER = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def answer(request):
    await request.json()
    return Response()

app = Starlette(routes=[Route("/", answer, methods=["POST"])])
uvicorn.run(app, fd=int(sys.argv[1]), log_level="warning", access_log=False)
"""


async def deliver(port: int, batches: int, concurrency: int) -> None:
    """Deliver so many batches, a window of them held at a time, as the work stream does."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = iter(range(batches))
    answered = 0

    def settle() -> None:
        nonlocal answered
        message = WorkRequest()
        reports.take(message)
        reports.forget(result.epoch for result in message.results)
        answered += len(message.results)
        assert all(result.http_status == 200 for result in message.results)
        delivery.add(Lease(batch, batch, 1, BODY, "") for _, batch in zip(message.results, left, strict=False))
        if answered == batches:
            done.set()

    def settle_soon() -> None:
        loop.call_soon(settle)

    reports = Reports(settle_soon)
    spec = WorkerSpec(job_id="0000000000000001", port=port, max_concurrency=concurrency)
    async with asyncio.TaskGroup() as group:
        deaths = Deaths(port, 0)
        spans = Spans(start("bench"), spec.job_id, 0)
        delivery = Delivery(
            spec, reports, Flow(concurrency), deaths, spans, group.create_task, lambda: None, lambda reason: None
        )
        delivery.resume()
        delivery.add(Lease(batch, batch, 1, BODY, "") for _, batch in zip(range(WINDOW), left, strict=False))
        await done.wait()
        delivery.give_up()


def measure(port: int, batches: int, concurrency: int) -> float:
    """Deliver and report; returns batches a second."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(deliver(port, batches, concurrency))
    after, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"dequeuer  {batches / took:8.0f} batches/s  {1000 * cpu / batches:.4f} CPU-s per 1000")
    return batches / took


def wrk(port: int, seconds: int, concurrency: int) -> float:
    """The same load from wrk; returns requests a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            'wrk.body = "[\\"" .. string.rep("x", 1020) .. "\\"]"\n'
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "-s", script.name, f"http://127.0.0.1:{port}/"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rate = float(next(line.split()[1] for line in report.splitlines() if "Requests/sec" in line))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"wrk       {rate:8.0f} requests/s {1000 * cpu / (rate * seconds):.4f} CPU-s per 1000")
    return rate


def main() -> None:
    """Run the server, the dequeuer's delivery, and wrk."""
    given = [int(text) for text in sys.argv[1:]]
    batches, concurrency = (*given, *(20_000, 8)[len(given) :])
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        script = Path(directory) / "server.py"
        script.write_text(SERVER)
        command = [sys.executable, str(script), str(listener.fileno())]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
        try:
            measure(port, min(batches, 2000), concurrency)
            rates = [measure(port, batches, concurrency)]
            if shutil.which("wrk"):
                rates.append(wrk(port, 3, concurrency))
                rates.append(measure(port, batches, concurrency))
                print(f"dequeuer / wrk = {max(rates[0], rates[2]) / rates[1]:.2f}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
