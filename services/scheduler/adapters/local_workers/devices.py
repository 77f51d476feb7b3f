"""The machine's GPUs and Inferentia chips, shared out among its workers.

A worker whose containers ask for some (`compute.gpu`, `compute.inf`) owns as many while it lives, each container its
own; which they are is in its record, so that the next scheduler knows. Where all are taken a worker waits for its turn:
first come, first served, so that a worker that needs many is not passed by for ever by those that need few.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from services.common.errors import Category, CortexError
from services.scheduler.adapters.local_workers.machine import CUDA_VARIABLE, Machine
from services.scheduler.domain.api_config.model import ApiConfig, Container

NEURON_VARIABLE = "NEURON_RT_VISIBLE_CORES"
"""Tells the Neuron runtime which cores are its own."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What a worker owns."""

    key: str = ""
    """`gpu` or `inf`, as in `compute`; a pod does not ask for both. Empty where it owns nothing."""
    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By container."""

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(name for share in self.of.values() for name in share)


@dataclass(eq=False, slots=True)
class _Turn:
    """A worker that waits for devices."""

    worker_id: str
    wanted: Mapping[str, int]
    shares: asyncio.Future[Shares]

    @property
    def number(self) -> int:
        return sum(self.wanted.values())


@dataclass(slots=True)
class _Stock:
    """One sort of devices."""

    what: str
    key: str
    all: tuple[str, ...]
    wanted: Callable[[Container], int]
    taken: dict[str, frozenset[str]] = field(default_factory=dict)
    """By worker."""
    waiting: deque[_Turn] = field(default_factory=deque)

    @property
    def free(self) -> list[str]:
        in_use = frozenset[str]().union(*self.taken.values())
        return [name for name in self.all if name not in in_use]

    def of(self, config: ApiConfig) -> dict[str, int]:
        """How many each container asks for, where it asks for any."""
        return {each.name: self.wanted(each) for each in config.pod.containers if self.wanted(each)}

    def serve(self) -> None:
        """Give those who wait what they wait for, in their order, as long as there is enough."""
        while self.waiting and (self.waiting[0].shares.done() or self.waiting[0].number <= len(self.free)):
            turn = self.waiting.popleft()
            if turn.shares.done():  # cancelled
                continue
            names = iter(self.free)
            shares = {name: tuple(islice(names, number)) for name, number in turn.wanted.items()}
            turn.shares.set_result(Shares(self.key, shares))
            self.taken[turn.worker_id] = turn.shares.result().names

    def release(self, worker_id: str) -> None:
        """A worker neither owns nor waits for anything."""
        self.taken.pop(worker_id, None)
        self.waiting = deque(turn for turn in self.waiting if turn.worker_id != worker_id)
        self.serve()


class Devices:
    """Who owns which of a machine's devices."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._gpus = _Stock("GPU", "gpu", machine.gpus, lambda container: container.compute.gpu)
        self._chips = _Stock("Inferentia chip", "inf", machine.chips, lambda container: container.compute.inf)

    def check(self, config: ApiConfig) -> None:
        """Raises `CortexError` when this machine cannot ever run a worker of this API."""
        for stock in (self._gpus, self._chips):
            wanted = sum(stock.of(config).values())
            if wanted > len(stock.all):
                there = ", ".join(stock.all)
                have = f"this machine has {len(stock.all)} ({there})" if stock.all else "this machine has none"
                how = "; `cortex up --gpus` says which there are" if stock is self._gpus else ""
                raise CortexError(
                    "resources.not_enough_devices",
                    f"a worker of {config.name} asks for {_count(wanted, stock.what)} (compute.{stock.key}), and"
                    f" {have}{how}",
                    Category.INVALID,
                )

    async def take(self, worker_id: str, config: ApiConfig, on_wait: Callable[[str], None]) -> Shares:
        """What a worker's containers are to own from now on, once there is enough.

        `on_wait` is told, for people, what it waits for. Cancelled, it takes nothing. Raises what `check` raises.
        """
        self.check(config)
        for stock in (self._gpus, self._chips):
            if wanted := stock.of(config):
                return await _take(stock, worker_id, wanted, on_wait)
        return Shares()

    def remember(self, worker_id: str, shares: Shares) -> None:
        """A worker owns these."""
        for stock in (self._gpus, self._chips):
            if stock.key == shares.key:
                stock.taken[worker_id] = shares.names

    def release(self, worker_id: str) -> None:
        """A worker is gone."""
        for stock in (self._gpus, self._chips):
            stock.release(worker_id)

    def variables(self, container: Container, shares: Shares) -> dict[str, str]:
        """What tells a container's process which devices are its own. Nothing where there are none to be shared."""
        share = shares.of.get(container.name, ())
        told = {}
        if self.machine.gpus:
            told[CUDA_VARIABLE] = ",".join(share if container.compute.gpu else ())
        if self.machine.chips and container.compute.inf:
            per = self.machine.cores_of_chip
            cores = [str(core) for chip in share for core in range(int(chip) * per, (int(chip) + 1) * per)]
            told[NEURON_VARIABLE] = ",".join(cores)
        return told


async def _take(stock: _Stock, worker_id: str, wanted: Mapping[str, int], on_wait: Callable[[str], None]) -> Shares:
    turn = _Turn(worker_id, wanted, asyncio.get_running_loop().create_future())
    stock.waiting.append(turn)
    stock.serve()
    try:
        if not turn.shares.done():
            there, taken = len(stock.all), len(stock.all) - len(stock.free)
            text = f"waits for {_count(turn.number, stock.what)}: {taken} of this machine's {there} taken"
            on_wait(text)
        return await turn.shares
    except asyncio.CancelledError:
        stock.release(worker_id)
        raise


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
