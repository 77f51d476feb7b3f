"""What keeping the containers' replies costs: the same job with and without `results`, in turns."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.containers import fast_server
from bench.jobs import Rounds, run_job
from bench.report import Figure
from bench.system import running

BATCHES = 20_000
ITEM = '"' + "x" * 160 + '"'
WORKERS = 2
ROUNDS = 4


def figures() -> Iterator[Figure]:
    """Medians of the rounds after a first one; the ratio is that of neighbours."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        server = fast_server(Path(directory))
        system.deploy(server.command())
        items = [ITEM] * BATCHES
        pairs = [
            (run_job(system, server, items, WORKERS), run_job(system, server, items, WORKERS, results=True))
            for _ in range(ROUNDS + 1)
        ][1:]
    without, kept = (Rounds(list(runs)) for runs in zip(*pairs, strict=True))
    ratio = median(with_results.rate / plain.rate for plain, with_results in pairs)
    yield Figure("results.ratio", "replies kept: rate beside that of the same job without", 100 * ratio, "%")
    yield Figure("results.rate", "  in the middle of the job", kept.rate, "batches/s")
    yield Figure("results.rate_without", "  without", without.rate, "batches/s")
    for name, rounds in (("", kept), ("_without", without)):
        cpu = rounds.cpu_per_1000("scheduler", "dequeuer")
        what = "without" if name else "CPU per 1000: scheduler + dequeuers"
        yield Figure(f"results.cpu{name}", f"  {what}", cpu, "s")
