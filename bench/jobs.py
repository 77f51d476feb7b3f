"""One job of many batches, watched from its submission to its end, and what it took."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.containers import FastServer
from bench.system import Seen, Submitted, System, must_succeed
from bench.usage import Usage, sampled

WATCH_INTERVAL_S = 0.01
LINES_AT_ONCE = 10_000
MIDDLE = (0.1, 0.9)
"""The middle of a job: from this share of its batches being final to that one."""


@dataclass(frozen=True)
class Run:
    """A job that succeeded."""

    submitted: Submitted
    batches: int
    seen: list[Seen]
    usage: Usage

    @property
    def seconds(self) -> float:
        """From the submission's answer to the final state."""
        return self.seen[-1].at - self.submitted.answered

    @property
    def steadiness(self) -> float:
        """The rate in the second half of the middle, as a share of that in its first half."""
        first, last = self._middle
        half = (first.final_batches + last.final_batches) / 2
        between = next(seen for seen in self.seen if seen.final_batches >= half)
        return _rate(between, last) / _rate(first, between)

    @property
    def _middle(self) -> tuple[Seen, Seen]:
        low, high = (share * self.batches for share in MIDDLE)
        first = next(seen for seen in self.seen if seen.final_batches >= low)
        last = next((seen for seen in reversed(self.seen) if seen.final_batches <= high), first)
        if last.at <= first.at:  # so quick that nothing was seen between
            first, last = self.seen[0], self.seen[-1]
        return first, last

    @property
    def start_up_seconds(self) -> float:
        """From the submission's answer to the first batches being final: the workers' start, and the containers'."""
        return next(seen.at for seen in self.seen if seen.final_batches) - self.submitted.answered

    @property
    def rate(self) -> float:
        """Batches a second in the middle."""
        return _rate(*self._middle)

    def cpu_per_1000(self, *kinds: str) -> float:
        """CPU seconds that these kinds of processes spent in the middle, per 1000 batches."""
        first, last = self._middle
        spent = sum(self.usage.cpu_s(kind, first.at, last.at) for kind in kinds)
        return 1000 * spent / (last.final_batches - first.final_batches)

    @property
    def rss_mib(self) -> float:
        """Memory of the largest dequeuer half way."""
        first, last = self._middle
        return self.usage.rss_mib("dequeuer", (first.at + last.at) / 2)


def _rate(first: Seen, last: Seen) -> float:
    return (last.final_batches - first.final_batches) / (last.at - first.at)


def write_lines(file: Path, line: bytes, count: int) -> Path:
    """A file with the same line so many times."""
    with file.open("wb") as output:
        for start in range(0, count, LINES_AT_ONCE):
            output.write(line * min(LINES_AT_ONCE, count - start))
    return file


def run_job(system: System, server: FastServer, items: list[str], workers: int, **fields: object) -> Run:
    """Submit items as batches of one, and watch them to the end. `fields` are the job's others."""
    with sampled(system, server.marker, workers) as usage:
        submitted = system.submit(items, workers, fields=fields)
        seen = list(system.watch(submitted.job_id, WATCH_INTERVAL_S))
    must_succeed(seen[-1])
    system.await_no_workers()
    return Run(submitted, len(items), seen, usage)


@dataclass(frozen=True)
class Rounds:
    """The same job several times: medians."""

    runs: list[Run]

    @property
    def rate(self) -> float:
        """Batches a second in the middle."""
        return median(run.rate for run in self.runs)

    @property
    def whole_rate(self) -> float:
        """Batches a second from the submission's answer to the final state."""
        return median(run.batches / run.seconds for run in self.runs)

    @property
    def start_up_seconds(self) -> float:
        """Until the first batches were final."""
        return median(run.start_up_seconds for run in self.runs)

    def cpu_per_1000(self, *kinds: str) -> float:
        """CPU seconds per 1000 batches in the middle."""
        return median(run.cpu_per_1000(*kinds) for run in self.runs)

    @property
    def rss_mib(self) -> float:
        """Memory of the largest dequeuer half way."""
        return median(run.rss_mib for run in self.runs)

    @property
    def peak_rss_mib(self) -> float:
        """The most that a dequeuer ever had."""
        return max(run.usage.peak_rss_mib("dequeuer") for run in self.runs)


def rounds_of(system: System, server: FastServer, items: list[str], workers: int, rounds: int) -> Rounds:
    """One round to warm up, then those that count."""
    return Rounds([run_job(system, server, items, workers) for _ in range(rounds + 1)][1:])
