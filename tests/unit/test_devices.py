"""Which GPUs and Inferentia chips a machine has, and who of its workers owns which."""

import asyncio
from pathlib import Path

import pytest
import yaml

from services.common.errors import CortexError
from services.scheduler.adapters.local_workers.devices import Devices, Shares
from services.scheduler.adapters.local_workers.machine import Machine, find_machine
from services.scheduler.domain.api_config import parse_api_file
from services.scheduler.domain.api_config.model import ApiConfig


def config(**gpus: int) -> ApiConfig:
    """An API whose containers ask for so many GPUs."""
    return _config({name: {"gpu": number} for name, number in gpus.items()})


def _config(computes: dict[str, dict[str, int]]) -> ApiConfig:
    containers = [{"name": name, "image": "i", "command": ["c"], "compute": it} for name, it in computes.items()]
    document = [{"name": "hello", "kind": "BatchAPI", "pod": {"containers": containers}}]
    (only,) = parse_api_file("cortex.yaml", yaml.safe_dump(document).encode())
    return only


def no_wait(reason: str) -> None:
    raise AssertionError(reason)


@pytest.mark.parametrize(
    ("environ", "devices", "gpus"),
    [
        ({"CORTEX_GPUS": "3"}, [], ("0", "1", "2")),
        ({"CORTEX_GPUS": "0"}, ["nvidia0"], ()),
        ({"CORTEX_GPUS": "2,"}, [], ("2",)),
        ({"CORTEX_GPUS": " GPU-8a, MIG-1 "}, [], ("GPU-8a", "MIG-1")),
        ({"CORTEX_GPUS": "1", "CUDA_VISIBLE_DEVICES": "4,5"}, [], ("0",)),
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, ["nvidia0"], ("4", "5")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia0"], ()),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, [], ("0",)),
        ({"CORTEX_GPUS": ""}, ["nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"], ("2", "10")),
    ],
)
def test_the_operators_word_counts_then_the_shells_then_what_is_there(
    environ: dict[str, str], devices: list[str], gpus: tuple[str, ...], tmp_path: Path
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    assert find_machine(environ, tmp_path).gpus == gpus


def test_a_list_that_names_a_gpu_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CortexError, match="without repetitions"):
        find_machine({"CORTEX_GPUS": "0,0"}, tmp_path)


def test_inferentia_chips_are_the_machines_devices(tmp_path: Path) -> None:
    for name in ("neuron1", "neuron0", "neuron_sched"):
        (tmp_path / name).touch()
    assert find_machine({"CORTEX_GPUS": "0"}, tmp_path).chips == ("0", "1")


async def test_every_worker_owns_gpus_of_its_own_and_every_container_its_part() -> None:
    devices = Devices(Machine(gpus=("0", "1", "2", "GPU-8a")))
    one = await devices.take("one", config(api=1, helper=0), no_wait)
    two = await devices.take("two", config(api=2, helper=1), no_wait)
    assert one == Shares("gpu", {"api": ("0",)})
    assert two == Shares("gpu", {"api": ("1", "2"), "helper": ("GPU-8a",)})


async def test_a_container_sees_its_own_devices_and_those_of_nobody_else() -> None:
    devices = Devices(Machine(gpus=("0", "1"), chips=("0", "1"), cores_of_chip=2))
    two = config(api=2, helper=0)
    shares = await devices.take("one", two, no_wait)
    assert [devices.variables(each, shares) for each in two.pod.containers] == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": ""},
    ]
    chip = _config({"api": {"inf": 1}})
    await devices.take("other", chip, no_wait)
    told = devices.variables(chip.pod.containers[0], await devices.take("another", chip, no_wait))
    assert told == {"CUDA_VISIBLE_DEVICES": "", "NEURON_RT_VISIBLE_CORES": "2,3"}


async def test_where_there_are_none_nothing_is_said_of_them() -> None:
    devices = Devices(Machine())
    plain = config(api=0)
    assert devices.variables(plain.pod.containers[0], await devices.take("one", plain, no_wait)) == {}


@pytest.mark.parametrize(
    ("compute", "text"),
    [
        ({"gpu": 3}, r"asks for 3 GPUs \(compute.gpu\), and this machine has 2 \(0, 1\); `cortex up --gpus`"),
        ({"inf": 1}, r"asks for 1 Inferentia chip \(compute.inf\), and this machine has none$"),
    ],
)
async def test_more_than_the_machine_has_is_an_error_at_once(compute: dict[str, int], text: str) -> None:
    devices = Devices(Machine(gpus=("0", "1")))
    with pytest.raises(CortexError, match=text):
        await devices.take("one", _config({"api": compute}), no_wait)


async def test_those_who_wait_are_served_in_their_order() -> None:
    devices = Devices(Machine(gpus=("0", "1")))
    await devices.take("one", config(api=1), no_wait)
    waits: list[str] = []
    big = asyncio.create_task(devices.take("big", config(api=2), waits.append))
    await asyncio.sleep(0)
    small = asyncio.create_task(devices.take("small", config(api=1), waits.append))
    await asyncio.sleep(0)
    assert waits[0] == "waits for 2 GPUs: 1 of this machine's 2 taken"
    assert len(waits) == 2  # though there is a GPU for the small one: else the big one may wait for ever
    devices.release("one")
    assert (await big).names == {"0", "1"}
    devices.release("big")
    assert (await small).names == {"0"}


async def test_a_worker_that_is_not_wanted_any_more_stands_in_nobodys_way() -> None:
    devices = Devices(Machine(gpus=("0",)))
    waits: list[str] = []
    await devices.take("one", config(api=1), no_wait)
    first = asyncio.create_task(devices.take("first", config(api=1), waits.append))
    second = asyncio.create_task(devices.take("second", config(api=1), waits.append))
    await asyncio.sleep(0)
    first.cancel()
    devices.release("one")
    await asyncio.sleep(0)
    assert (await second).names == {"0"}
    assert first.cancelled()


async def test_what_an_adopted_worker_owns_is_given_to_nobody_else() -> None:
    devices = Devices(Machine(gpus=("0", "1"), chips=("0",)))
    devices.remember("of before", Shares("gpu", {"api": ("0",)}))
    assert (await devices.take("one", config(api=1), no_wait)).names == {"1"}
    assert (await devices.take("two", _config({"api": {"inf": 1}}), no_wait)).names == {"0"}
