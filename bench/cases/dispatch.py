"""The dequeuer's delivery alone against starlette on uvicorn with JSON parsing, beside wrk."""

import re
import subprocess
import sys
from collections.abc import Iterator

from bench.report import Figure

LINE = re.compile(r"^(dequeuer|wrk)\s+(\d+) (?:batches|requests)/s\s+([\d.]+) CPU-s per 1000$", re.MULTILINE)


def figures() -> Iterator[Figure]:
    """Rates and CPU of both. In a process of its own, whose CPU is the delivery's alone."""
    report = subprocess.run(
        [sys.executable, "-m", "bench.dispatch"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found = LINE.findall(report)[1:]  # the first one warms up
    rate, cpu = max((float(rate), float(cpu)) for name, rate, cpu in found if name == "dequeuer")
    yield Figure("dispatch.rate", "dispatch alone against starlette, 8 at once", rate, "batches/s")
    yield Figure("dispatch.cpu", "  CPU per 1000", cpu, "s")
    for limit in (float(rate) for name, rate, _ in found if name == "wrk"):
        yield Figure("dispatch.wrk", "  wrk against that server", limit, "requests/s")
        yield Figure("dispatch.share_of_wrk", "  share of wrk", 100 * rate / limit, "%")
