"""How soon `cortex up` is ready, and what its processes use when there is nothing to do."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.containers import fast_server
from bench.report import Figure
from bench.system import System, running
from bench.usage import SERVICES, SUPERVISOR, Usage, sampled

STARTS = 3
IDLE_SECONDS = 6.0
SETTLE_SECONDS = 1.5
KINDS = (SUPERVISOR, *SERVICES)


def figures() -> Iterator[Figure]:
    """Starts, then one job whose only batch takes longer than the measurement."""
    ready = []
    for _ in range(STARTS - 1):
        with running() as system:
            ready.append(system.started_in)
    with tempfile.TemporaryDirectory() as directory, running() as system:
        ready.append(system.started_in)
        server = fast_server(Path(directory))
        system.deploy(server.command(delay_ms=60_000))
        usage, began, ended = _idle(system, server.marker)
    yield Figure("start.ready", "`cortex up` to ready", median(ready), "s")
    for kind in KINDS:
        share = 100 * usage.cpu_s(kind, began, ended) / (ended - began)
        yield Figure(f"start.idle_{kind}", f"idle CPU: {kind}", share, "%")
    for kind in KINDS:
        yield Figure(f"start.rss_{kind}", f"idle memory: {kind}", usage.rss_mib(kind, ended), "MiB")


def _idle(system: System, marker: str) -> tuple[Usage, float, float]:
    with sampled(system, marker, workers=1) as usage:
        submitted = system.submit(['"one"'], workers=1)
        for seen in system.watch(submitted.job_id):
            if seen.job.batch_counts.leased:
                break
        time.sleep(SETTLE_SECONDS)
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        ended = time.monotonic()
    system.stop(submitted.job_id)
    return usage, began, ended
