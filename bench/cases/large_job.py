"""60,000 small batches in one job: the rate of a short job holds, and memory stays."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.containers import fast_server
from bench.jobs import rounds_of
from bench.report import Figure
from bench.system import running
from bench.usage import CONTAINER

BATCHES = 60_000
ITEM = '"' + "x" * 160 + '"'
WORKERS = 2
ROUNDS = 5
"""So many because a half takes two seconds: whatever else the machine does in one of them looks like a slower half."""


def figures() -> Iterator[Figure]:
    """Medians of the rounds after a first one."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        server = fast_server(Path(directory))
        system.deploy(server.command())
        rounds = rounds_of(system, server, [ITEM] * BATCHES, WORKERS, ROUNDS)
    cpu = rounds.cpu_per_1000
    yield Figure("large_job.rate", "60,000 x 160 bytes: in the middle of the job", rounds.rate, "batches/s")
    yield Figure("large_job.whole_rate", "  from answer to final state", rounds.whole_rate, "batches/s")
    steadiness = 100 * median(run.steadiness for run in rounds.runs)
    yield Figure("large_job.steadiness", "  its second half beside its first", steadiness, "%")
    yield Figure("large_job.cpu", "  CPU per 1000: scheduler + dequeuers", cpu("scheduler", "dequeuer"), "s")
    yield Figure("large_job.cpu_scheduler", "    scheduler", cpu("scheduler"), "s")
    yield Figure("large_job.cpu_dequeuers", "    dequeuers", cpu("dequeuer"), "s")
    yield Figure("large_job.cpu_container", "  CPU per 1000: the containers themselves", cpu(CONTAINER), "s")
    yield Figure("large_job.peak_rss", "  dequeuer memory at most", rounds.peak_rss_mib, "MiB")
    scheduler = max(run.usage.peak_rss_mib("scheduler") for run in rounds.runs)
    yield Figure("large_job.scheduler_rss", "  scheduler memory at most", scheduler, "MiB")
