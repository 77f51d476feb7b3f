"""`cortex logs API JOB --random-pod`: a job's log over a websocket, from a real scheduler."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedOK

from services.gateway.settings import Address
from tests.compat import player
from tests.integration.gateway_harness import in_front_of
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, scheduler


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Kit, Address]]:
    async with scheduler(tmp_path, ScriptedDriver()) as kit, in_front_of(kit.address, tmp_path) as (address, _):
        await kit.deploy()
        yield kit, address


def dial(address: Address, job_id: str) -> connect:
    """As the command line does: no compression, no protocol of its own, no origin."""
    headers = {name: player.HEADERS["cli"][name] for name in ("Cortexapiversion", "X-Cortex-Authorization")}
    return connect(
        f"ws://{address.host}:{address.port}/streamlogs/hello?jobID={job_id}",
        additional_headers=headers,
        user_agent_header="Go-http-client/1.1",
        compression=None,
        proxy=None,
    )


class Output:
    """What a container of a job's only worker writes."""

    def __init__(self, folder: Path, job_id: str, container: str = "api") -> None:
        self._path = folder / "logs" / "hello" / job_id / "0" / f"{container}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._second = 0

    def write(self, *messages: str) -> None:
        with self._path.open("a") as file:
            for message in messages:
                self._second += 1
                time = f"2026-11-23T13:20:{self._second:02}.000+00:00"
                file.write(json.dumps({"time": time, "message": message}) + "\n")


async def printed(client: ClientConnection, count: int) -> str:
    return "".join([str(await client.recv()) for _ in range(count)])


async def test_all_that_is_there_and_then_what_is_written_until_the_workers_are_gone(
    tmp_path: Path, both: tuple[Kit, Address]
) -> None:
    kit, address = both
    job_id = await kit.submit("[1]")
    worker = await kit.worker()
    await worker.open()
    (lease,) = await worker.lease(1)
    output = Output(tmp_path, job_id)
    output.write("started", '{"level": "info", "message": "a record"}')
    async with dial(address, job_id) as client:
        assert client.subprotocol is None
        assert await printed(client, 2) == "started\na record\n"
        output.write("later")
        assert await printed(client, 1) == "later\n"
        await worker.send(worker.result(lease))
        await worker.answer_completion()
        await kit.until(job_id, lambda job: job.status == Job.STATUS_SUCCEEDED)
        output.write("the last word")  # its worker is not gone yet
        assert await printed(client, 1) == "the last word\n"
        await worker.close()
        kit.driver.die(worker.id)
        with pytest.raises(ConnectionClosedOK) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


async def test_the_log_of_a_job_that_is_over_is_sent_whole(tmp_path: Path, both: tuple[Kit, Address]) -> None:
    kit, address = both
    job_id = await kit.submit("[1]")
    worker = await kit.worker()
    await worker.open()
    await worker.work_off()
    await worker.answer_completion()
    await kit.until(job_id, lambda job: job.HasField("end_time"))
    await worker.close()
    kit.driver.die(worker.id)
    lines = [f"line {number}" for number in range(50)]
    Output(tmp_path, job_id).write(*lines)
    async with dial(address, job_id) as client:
        assert (await printed(client, 50)).splitlines() == lines
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
