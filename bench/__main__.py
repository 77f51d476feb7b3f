"""Runs the benchmarks and shows their figures. `python -m bench [NAME...] [--json]`

They report; nothing passes or fails. Progress goes to standard error, one line for each benchmark.
"""

import argparse
import sys
import time
from importlib import import_module

from bench.report import Figure, as_json, show

BENCHMARKS = {
    "start": "`cortex up` to ready, and what its processes use when nothing happens",
    "end_to_end": "10,000 batches of 1 KiB from the submission's answer to the final state",
    "large_job": "the same with 60,000 smaller batches: the rate holds",
    "one_batch": "jobs of one batch: submission, and from the container's last answer to the final state",
    "streamed_item": "items appended to a running streamed job, one after another: to the outcome of each",
    "file_job": "a file of 1,000,000 lines: read, split and worked on, with references into it",
    "results": "what keeping the containers' replies costs",
    "split_failed": "what finding the bad item of every batch costs",
    "python_server": "a container as people write them (starlette on uvicorn), beside wrk",
    "dispatch": "the dequeuer's delivery alone, beside wrk",
    "ledger": "the ledger alone",
    "partition": "splitting a submission alone",
    "ndjson": "reading and splitting a file of JSON values alone: from the disk, and from an S3 server",
}
"""Name and what it measures. Each is `figures` in `bench.cases.NAME`."""


def main() -> int:
    """Run what is asked for."""
    told = "\n".join(f"  {name:14} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        "python -m bench",
        description=f"Benchmarks of the whole system and of its parts:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all when none is named")
    parser.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}: there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in asked.names or BENCHMARKS:
        began = time.monotonic()
        print(f"{name}: {BENCHMARKS[name]} ...", end=" ", file=sys.stderr, flush=True)
        figures += import_module(f"bench.cases.{name}").figures()
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    if asked.json:
        print(as_json(figures))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
