"""The edge cuts nobody off for being silent: streams of items, watches, the work stream, which may rest for hours.

To show that without waiting, Envoy gets an idle timeout of half a second for everything that does not say otherwise,
and one path without a word about it: when a request to that is cut off, the others have been silent for longer.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.sync.client import connect

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from tests.e2e.system import System, system
from tests.edge_kit import edge
from tests.integration import scheduler_kit
from tests.integration.dequeuer_kit import HttpContainer, surroundings
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

IMPATIENT = "/hello"


def impatient(config: dict[str, Any]) -> None:
    """Half a second of silence is too much where a route does not allow it."""
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["stream_idle_timeout"] = "0.5s"
    [host] = manager["route_config"]["virtual_hosts"]
    host["routes"].insert(0, {"match": {"path": IMPATIENT}, "route": {"cluster": "gateway", "timeout": "0s"}})


def begun(address: str, path: str) -> socket.socket:
    """A request whose body does not come."""
    host, port = address.split(":")
    made = socket.create_connection((host, int(port)), timeout=30)
    head = (
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/x-ndjson",
        "Transfer-Encoding: chunked",
    )
    made.sendall("".join(f"{line}\r\n" for line in (*head, "")).encode())
    return made


def send(stream: socket.socket, line: str) -> None:
    stream.sendall(f"{len(line) + 1:x}\r\n{line}\n\r\n".encode())


def test_clients_may_be_silent(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        behind = {"gateway": [running.url.removeprefix("http://")], "scheduler": [running.grpc_address]}
        with (
            edge(tmp_path / "edge", impatient, open=True, **behind) as front,
            grpc.insecure_channel(front.address("edge")) as channel,
        ):
            lines = begun(front.address("edge"), "/batch/hello?workers=1&batch_size=1")
            send(lines, "1")
            [job] = wait_for("the job", lambda: job_ids(running))
            watch = batch_service_pb2_grpc.BatchServiceStub(channel).WatchJob(
                pb.WatchJobRequest(api_name="hello", job_id=job)
            )
            next(watch)
            url = f"ws://{front.address('edge')}/streamlogs/hello?jobID={job}"
            with connect(url, ping_interval=None) as log:
                assert begun(front.address("edge"), IMPATIENT).recv(1000).startswith(b"HTTP/1.1 408 ")
                send(lines, "2")
                lines.sendall(b"0\r\n\r\n")
                assert lines.recv(1000).startswith(b"HTTP/1.1 200 ")
                *_, last = watch
                assert last.job.batch_counts.succeeded == 2
                list(log)  # raises when the connection breaks
            lines.close()


def job_ids(running: System) -> list[str]:
    """The ids of the jobs that there are."""
    jobs: list[dict[str, Any]] = running.client.get_api("hello")["batch_job_statuses"]
    return [str(job["job_id"]) for job in jobs]


BATCHES = 1500


def delivered(container: HttpContainer, count: int) -> Callable[[], bool]:
    return lambda: len(container.asked) >= count


async def test_a_workers_stream_finds_the_scheduler_again_after_each_of_its_deaths(tmp_path: Path) -> None:
    driver = scheduler_kit.ScriptedDriver()
    pods = {"listen": "127.0.0.1:0"}
    starting = edge(
        tmp_path / "edge", open=True, in_cluster=pods, scheduler=[f"unix://{tmp_path / 's'}"], gateway=["127.0.0.1:1"]
    )
    front = await asyncio.to_thread(starting.__enter__)
    job_id = ""
    try:
        async with surroundings(tmp_path, concurrency=4) as kit:
            for crash_after in (300, 800, None):
                async with scheduler_kit.scheduler(tmp_path, driver) as scheduler:
                    if not job_id:
                        await scheduler.deploy()
                        job_id = await scheduler.submit(str(list(range(BATCHES))))
                        worker = await scheduler.worker()
                        kit.spec.job_id, kit.spec.worker_id, kit.spec.token = job_id, worker.id, worker.token
                        kit.spec.scheduler_address = front.address("in_cluster")
                        kit.start()
                    if crash_after is not None:
                        await kit.container.until(delivered(kit.container, crash_after))
                        continue
                    job = await scheduler.until(job_id, lambda job: job.HasField("end_time"))
                    assert await kit.ended() == 0
            assert job.status == scheduler_kit.Job.STATUS_SUCCEEDED
            assert Counter(kit.container.batches) == Counter(range(BATCHES))
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
