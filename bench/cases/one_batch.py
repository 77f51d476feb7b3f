"""Jobs of one batch, one after another: how quickly they are accepted, and how quickly their end is seen.

The container notes when it answered /on-job-complete, its last request; the client notes when WatchJob showed the final
state. Both read the same wall clock.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

from bench.containers import fast_server
from bench.report import Figure
from bench.system import must_succeed, running

JOBS = 30


def figures() -> Iterator[Figure]:
    """Percentiles in milliseconds."""
    asked, ended, whole = [], [], []
    with tempfile.TemporaryDirectory() as directory, running() as system:
        server = fast_server(Path(directory))
        system.deploy(server.command())
        finals = {}
        for _ in range(JOBS + 1):
            submitted = system.submit(['"one"'], workers=1)
            *_, last = system.watch(submitted.job_id)
            must_succeed(last)
            finals[submitted] = last
            system.await_no_workers()
        answered_ns = server.completion_times()
        for submitted, last in list(finals.items())[1:]:  # the first one warms up
            asked.append(1e3 * (submitted.answered - submitted.asked))
            whole.append(1e3 * (last.at - submitted.answered))
            ended.append(1e-6 * (last.wall_ns - answered_ns[submitted.job_id]))
    yield Figure("one_batch.submit_p50", "job of one batch: submission to its answer, p50", median(asked), "ms")
    yield Figure("one_batch.whole_p50", "  answer to final state, worker's start included, p50", median(whole), "ms")
    yield Figure(
        "one_batch.last_reply_p50", "  container's last reply to final state at WatchJob, p50", median(ended), "ms"
    )
    yield Figure("one_batch.last_reply_p90", "  the same, p90", quantiles(ended, n=10)[-1], "ms")
