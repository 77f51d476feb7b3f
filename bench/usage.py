"""CPU and memory of the system's processes over time, by what they are.

A thread looks at them every `INTERVAL_S`. Their CPU time at any moment is then interpolated, which is how the cost of
the middle of a job is told apart from the start of its workers.
"""

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from bench.memory import memory
from bench.system import System, alive

INTERVAL_S = 0.04
SERVICES = ("gateway", "scheduler", "collector", "dequeuer")
CONTAINER = "container"
SUPERVISOR = "cortex up"
MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """What all processes of a kind had used at a moment."""

    at: float
    """On the monotonic clock."""
    cpu_s: dict[str, float]
    """Since their starts, summed."""
    rss: dict[str, int]
    """Bytes; the largest of the kind."""


@dataclass
class Usage:
    """Samples, oldest first."""

    samples: list[Sample] = field(default_factory=list)
    peak_rss: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The most that a process of the kind ever had resident, in bytes."""

    def cpu_s(self, kind: str, start: float, end: float) -> float:
        """CPU seconds of a kind of process between two moments."""
        return self._at(kind, end) - self._at(kind, start)

    def rss_mib(self, kind: str, at: float) -> float:
        """Resident memory of the largest process of a kind at a moment."""
        return self.samples[self._index(at)].rss.get(kind, 0) / MIB

    def peak_rss_mib(self, kind: str) -> float:
        """The most it ever was."""
        return self.peak_rss[kind] / MIB

    def _index(self, at: float) -> int:
        return min(bisect_left(self.samples, at, key=lambda sample: sample.at), len(self.samples) - 1)

    def _at(self, kind: str, at: float) -> float:
        index = self._index(at)
        after, before = self.samples[index], self.samples[max(index - 1, 0)]
        high, low = after.cpu_s.get(kind, 0.0), before.cpu_s.get(kind, 0.0)
        if after.at <= at or after.at == before.at:
            return high
        return low + (high - low) * max(0.0, at - before.at) / (after.at - before.at)


class Sampler:
    """Watches a system's processes. `expected`: so many processes of a kind are yet to come."""

    def __init__(self, system: System, container_marker: str, expected: dict[str, int]) -> None:
        self.usage = Usage()
        self._root = system.process
        self._marker = container_marker
        self._expected = expected
        self._processes: dict[psutil.Process, str] = {system.process: SUPERVISOR}
        self._cpu: dict[psutil.Process, float] = {}
        self._stop = threading.Event()

    def run(self) -> None:
        """Take samples until stopped."""
        self._find()
        while not self._stop.wait(INTERVAL_S):
            kinds = list(self._processes.values())
            if any(kinds.count(kind) < count for kind, count in self._expected.items()):
                self._find()
            self.usage.samples.append(self._sample())

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()

    def _find(self) -> None:
        for child, command in alive(self._root).items():
            if child not in self._processes and (kind := self._kind(command)):
                self._processes[child] = kind

    def _kind(self, command: list[str]) -> str:
        for service in SERVICES:
            if f"services.{service}" in command:
                return service
        # The container itself; what wraps it (bubblewrap) names it in its command line too.
        return CONTAINER if self._marker in command[:2] and "bwrap" not in command[0] else ""

    def _sample(self) -> Sample:
        rss: dict[str, int] = defaultdict(int)
        for process, kind in self._processes.items():
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                times = process.cpu_times()
                self._cpu[process] = times.user + times.system
                resident, peak = memory(process.pid)
                rss[kind] = max(rss[kind], resident)
                self.usage.peak_rss[kind] = max(self.usage.peak_rss[kind], peak)
        cpu: dict[str, float] = defaultdict(float)
        for process, seconds in self._cpu.items():
            cpu[self._processes[process]] += seconds
        return Sample(time.monotonic(), cpu, rss)


@contextmanager
def sampled(system: System, container_marker: str, workers: int) -> Iterator[Usage]:
    """Watch the system's processes meanwhile."""
    sampler = Sampler(system, container_marker, {"dequeuer": workers, CONTAINER: workers})
    thread = threading.Thread(target=sampler.run, name="sampler")
    thread.start()
    try:
        yield sampler.usage
    finally:
        sampler.stop()
        thread.join()
