"""10,000 batches of 1 KiB as one item list, against the fastest container: two workers, eight batches at once each."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.containers import fast_server
from bench.jobs import rounds_of
from bench.report import Figure
from bench.system import running
from bench.usage import CONTAINER

BATCHES = 10_000
BATCH_BYTES = 1024
WORKERS = 2
ROUNDS = 5


def figures() -> Iterator[Figure]:
    """Medians of several rounds after a first one."""
    item = '"' + "x" * (BATCH_BYTES - 4) + '"'  # a batch is ["..."]
    with tempfile.TemporaryDirectory() as directory, running() as system:
        server = fast_server(Path(directory))
        system.deploy(server.command())
        rounds = rounds_of(system, server, [item] * BATCHES, WORKERS, ROUNDS)
    name = "end_to_end"
    yield Figure(f"{name}.rate", "end to end, 10,000 x 1 KiB: in the middle of the job", rounds.rate, "batches/s")
    yield Figure(
        f"{name}.whole_rate", "  from answer to final state, workers' start included", rounds.whole_rate, "batches/s"
    )
    yield Figure(f"{name}.start_up", "  from answer to the first final batches", rounds.start_up_seconds, "s")
    cpu = rounds.cpu_per_1000
    yield Figure(f"{name}.cpu", "  CPU per 1000: scheduler + dequeuers", cpu("scheduler", "dequeuer"), "s")
    yield Figure(f"{name}.cpu_scheduler", "    scheduler", cpu("scheduler"), "s")
    yield Figure(f"{name}.cpu_dequeuers", "    dequeuers", cpu("dequeuer"), "s")
    yield Figure(f"{name}.cpu_collector", "  CPU per 1000: collector", cpu("collector"), "s")
    yield Figure(f"{name}.cpu_container", "  CPU per 1000: the containers themselves", cpu(CONTAINER), "s")
    yield Figure(f"{name}.rss", "  dequeuer memory half way", rounds.rss_mib, "MiB")
    yield Figure(f"{name}.peak_rss", "  dequeuer memory at most", rounds.peak_rss_mib, "MiB")
