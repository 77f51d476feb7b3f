"""GPUs of one machine, shared out among its workers. The machine's are made up: what counts is who is told of which."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import CortexError
from services.scheduler.adapters.local_workers import Machine
from services.scheduler.domain.api_config import load_api
from services.scheduler.domain.model.worker import Health, Phase
from tests.integration.local_worker_kit import WAIT_SECONDS, Workers, api, job, script

SEES = "echo sees [$$CUDA_VISIBLE_DEVICES]; exec sleep 1000"
PORT = {"PORT": "$(CORTEX_PORT)"}
MACHINE = Machine(gpus=("0", "1", "4"))


def container(name: str, gpus: int, **env: str) -> dict[str, Any]:
    return script(name, SEES, env={**PORT, **env}, compute={"gpu": gpus})


async def test_each_worker_has_its_own_and_one_that_asks_for_none_sees_none(tmp_path: Path) -> None:
    version = api(container("api", 1), container("helper", 0))
    async with Workers(tmp_path, machine=MACHINE) as workers:
        for slot, gpu in enumerate(MACHINE.gpus):
            await workers.start(version, slot)
            assert await workers.says("api", "sees", slot) == f"sees [{gpu}]"
            assert await workers.says("helper", "sees", slot) == "sees []"


async def test_env_has_the_last_word(tmp_path: Path) -> None:
    async with Workers(tmp_path, machine=MACHINE) as workers:
        await workers.start(api(container("api", 0, CUDA_VISIBLE_DEVICES="1")))
        assert await workers.says("api", "sees") == "sees [1]"


async def test_where_there_are_no_gpus_nothing_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    async with Workers(tmp_path) as workers:
        await workers.start(api(container("api", 0)))
        assert await workers.says("api", "sees") == "sees [7]"


async def test_a_worker_waits_says_so_and_goes_on_when_another_one_has_ended(tmp_path: Path) -> None:
    version = api(container("api", 2))
    heard: list[tuple[str, Health]] = []
    waits = asyncio.Event()

    def on_health(worker_id: str, health: Health) -> None:
        heard.append((worker_id, health))
        waits.set()

    async with Workers(tmp_path, machine=MACHINE) as workers:
        workers.driver.on_health(on_health)
        first = await workers.start(version)
        second = asyncio.create_task(workers.start(version, 1, job("00000000000000bb")))
        async with asyncio.timeout(WAIT_SECONDS):
            await waits.wait()
        ((_, health),) = heard
        assert health == Health(Phase.PENDING, "waits for 2 GPUs: 2 of this machine's 3 taken", queued=True)
        await workers.driver.kill(first)
        await second
        assert await workers.says("api", "sees", 1, job("00000000000000bb")) == "sees [0,1]"


async def test_a_later_scheduler_knows_which_are_taken(tmp_path: Path) -> None:
    version = api(container("api", 2))
    async with Workers(tmp_path, machine=MACHINE) as workers, Workers(tmp_path, machine=MACHINE) as later:
        first = await workers.start(version)
        assert await later.driver.adopt(first)
        await later.start(api(container("api", 1)), 1)
        assert await later.says("api", "sees", 1) == "sees [4]"


async def test_more_than_there_are_is_an_error_at_once(tmp_path: Path) -> None:
    version = api(container("api", 4))
    async with Workers(tmp_path, machine=MACHINE) as workers:
        with pytest.raises(CortexError, match=r"asks for 4 GPUs .* has 3 \(0, 1, 4\)"):
            workers.driver.check(load_api(version))
        with pytest.raises(CortexError, match=r"asks for 4 GPUs .* has 3 \(0, 1, 4\)"):
            await workers.start(version)
