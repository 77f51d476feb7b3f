"""A job of a file: a million lines of 160 bytes in batches of 100, referred to where they are.

The scheduler reads the file twice: to find where its items are, and again for the batches that it gives out. Both go on
at once, beside the rest of the system.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.containers import fast_server
from bench.jobs import WATCH_INTERVAL_S, write_lines
from bench.report import Figure
from bench.system import must_succeed, running
from bench.usage import sampled

LINES = 1_000_000
LINE = b'"' + b"x" * 157 + b'"\n'
BATCH_SIZE = 100
WORKERS = 2


def figures() -> Iterator[Figure]:
    """One job, after a short one that warms up."""
    with tempfile.TemporaryDirectory() as directory, running() as system:
        server = fast_server(Path(directory))
        system.deploy(server.command())
        few, many = (write_lines(system.inputs / f"{count}.ndjson", LINE, count) for count in (10 * BATCH_SIZE, LINES))
        *_, warm = system.watch(system.submit_file(few, WORKERS, BATCH_SIZE).job_id)
        must_succeed(warm)
        system.await_no_workers()
        before = system.ledger_bytes
        with sampled(system, server.marker, WORKERS) as usage:
            submitted = system.submit_file(many, WORKERS, BATCH_SIZE)
            seen = list(system.watch(submitted.job_id, WATCH_INTERVAL_S))
        grown = system.ledger_bytes - before
    must_succeed(seen[-1])
    size, batches = LINES * len(LINE), LINES // BATCH_SIZE
    split = next(each for each in seen if each.job.HasField("total_batch_count")).at - submitted.answered
    rate = batches / (seen[-1].at - submitted.answered)
    idle, most = usage.samples[0].rss["scheduler"] / 2**20, usage.peak_rss_mib("scheduler")
    yield Figure("file_job.split", "160 MB of lines in a file: read and split", size / split / 1e6, "MB/s")
    yield Figure("file_job.whole_rate", "  batches of 100 lines, from answer to final state", rate, "batches/s")
    yield Figure("file_job.whole_bytes", "  the same in bytes of the file", rate * BATCH_SIZE * len(LINE) / 1e6, "MB/s")
    yield Figure("file_job.ledger", "  ledger, beside the file", 100 * grown / size, "%")
    yield Figure("file_job.scheduler_rss", "  scheduler memory at most", most, "MiB")
    yield Figure("file_job.scheduler_growth", "    more than before the job", most - idle, "MiB")
