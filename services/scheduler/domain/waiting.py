"""Batches between two attempts, by the moment at which the next one is due."""

import heapq
from collections.abc import Iterator


class Waiting:
    """A set of batches, each with its moment (seconds of a clock that never jumps)."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []  # may hold batches that wait no longer, or for another moment

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, index: int) -> bool:
        return index in self._due

    def __iter__(self) -> Iterator[int]:
        return iter(self._due)

    def add(self, index: int, due: float) -> None:
        """A batch waits until then."""
        self._due[index] = due
        heapq.heappush(self._heap, (due, index))

    def discard(self, index: int) -> None:
        """A batch waits no longer, if it did."""
        self._due.pop(index, None)

    @property
    def next_due(self) -> float | None:
        """When to look again: something may be due then."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[int]:
        """The batches whose moment has come; they wait no longer."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            moment, index = heapq.heappop(self._heap)
            if self._due.get(index) == moment:
                del self._due[index]
                due.append(index)
        return due
