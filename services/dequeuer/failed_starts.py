"""Starts of a pod's containers, in a row, that ended without a finished batch: a worker is judged by them."""


class FailedStarts:
    """Those of one pod."""

    def __init__(self) -> None:
        self.number = 0
        self.out_of_memory = False
        """There is evidence that the last of them ran out of memory."""
        self.batches = 0
        """Finished since the worker's start."""

    def ended(self, number: int, *, out_of_memory: bool) -> None:
        """Containers ended; so many of their starts without a finished batch."""
        self.number += number
        self.out_of_memory = out_of_memory

    def batch_finished(self) -> bool:
        """The budget is full again. False when it was anyway."""
        self.batches += 1
        failed, self.number, self.out_of_memory = self.number, 0, False
        return failed > 0
