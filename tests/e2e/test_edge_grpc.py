"""gRPC through the edge: clients, tools that ask for the schema, and the scheduler's replicas, of which one leads."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc, resources_pb2, worker_service_pb2_grpc
from cortex.batch.v1.worker_service_pb2 import Hello, WorkRequest
from services.common.errors import Category
from services.common.grpc_errors import from_rpc_error
from services.common.names import CHANNEL_OPTIONS
from tests.e2e.system import System, system
from tests.edge_kit import Edge, edge
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)

BUF = Path(sys.executable).with_name("buf")
SERVICE = "cortex.batch.v1.BatchService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("up")) as found:
        found.deploy()
        yield found


@pytest.fixture(scope="module")
def front(running: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    [collector] = running.processes("services.collector")
    with edge(
        tmp_path_factory.mktemp("edge"),
        open=True,
        otlp=f"unix://{collector.environ()['CORTEX_COLLECTOR_SOCKET']}",
        gateway=[running.url.removeprefix("http://")],
        scheduler=[running.grpc_address],
    ) as found:
        yield found


@pytest.fixture
def stub(front: Edge) -> Iterator[batch_service_pb2_grpc.BatchServiceStub]:
    with grpc.insecure_channel(front.address("edge"), options=CHANNEL_OPTIONS) as channel:
        yield batch_service_pb2_grpc.BatchServiceStub(channel)


def submission(*items: str) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(
        api_name="hello", workers=1, item_list=pb.ItemList(items_json=f"[{','.join(items)}]", batch_size=1)
    )


def test_a_job_runs_and_one_trace_leads_from_the_edge_into_the_container(
    running: System, stub: batch_service_pb2_grpc.BatchServiceStub
) -> None:
    job = stub.SubmitJob(submission("1", "2")).job
    *_, last = stub.WatchJob(pb.WatchJobRequest(api_name="hello", job_id=job.job_id))
    assert last.job.status == resources_pb2.Job.STATUS_SUCCEEDED

    def spans() -> dict[str, dict[str, Any]]:
        return {span["span_id"]: span for span in running.client.job_trace("hello", job.job_id)["spans"]}

    parts = {"cortex-edge", "cortex-scheduler", "cortex-dequeuer"}
    found = wait_for(
        "spans of every part", lambda: spans() if {span["service"] for span in spans().values()} >= parts else None
    )
    submitted = next(span for span in found.values() if span["name"] == "BatchService/SubmitJob")
    assert found[submitted["parent_span_id"]]["service"] == "cortex-edge"


def test_the_largest_submission_passes(stub: batch_service_pb2_grpc.BatchServiceStub) -> None:
    item = f'"{"x" * 200_000}"'
    assert stub.SubmitJob(submission(*[item] * 52)).job.total_batch_count == 52


def test_an_error_keeps_its_details(stub: batch_service_pb2_grpc.BatchServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.GetJob(pb.GetJobRequest(api_name="hello", job_id="1"))
    told = from_rpc_error(error.value)
    assert (told.kind, told.category) == ("job.not_found", Category.NOT_FOUND)


def curl(front: Edge, *arguments: str) -> str:
    command: list[Path | str] = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_tools_find_the_schema_and_call(front: Edge) -> None:
    url = f"http://{front.address('edge')}"
    assert f"{SERVICE}/SubmitJob" in curl(front, url, "--list-methods").split()
    assert [api["name"] for api in json.loads(curl(front, f"{url}/{SERVICE}/ListApis", "-d", "{}"))["apis"]] == [
        "hello"
    ]
    asked = json.dumps({"service": SERVICE})
    answer = json.loads(curl(front, f"{url}/grpc.health.v1.Health/Check", "-d", asked))
    assert answer == {"status": "SERVING"}


def test_what_is_no_service_for_clients_is_not_served(front: Edge) -> None:
    with grpc.insecure_channel(front.address("edge")) as channel:
        for method in ("/cortex.batch.v1.WorkerService/Work", "/nothing.v1.Here/Is"):
            with pytest.raises(grpc.RpcError) as error:
                _called(channel, method)
            told = from_rpc_error(error.value)
            assert (told.kind, told.category) == ("endpoints.not_found", Category.UNSUPPORTED)


def test_a_worker_from_elsewhere_shows_its_own_token_to_the_scheduler(running: System, tmp_path: Path) -> None:
    with (
        edge(tmp_path, open=True, work_stream=True, scheduler=[running.grpc_address]) as front,
        grpc.insecure_channel(front.address("edge")) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        list(worker_service_pb2_grpc.WorkerServiceStub(channel).Work(iter([WorkRequest(hello=Hello(token="bad"))])))
    assert from_rpc_error(error.value).kind == "worker.bad_token"


def test_a_client_that_asks_too_often_is_told_to_wait(running: System, tmp_path: Path) -> None:
    limit = {"per_second": 1, "burst": 2}
    with (
        edge(tmp_path, open=True, rate_limit=limit, scheduler=[running.grpc_address]) as front,
        grpc.insecure_channel(front.address("edge")) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        _call_often(batch_service_pb2_grpc.BatchServiceStub(channel))
    assert from_rpc_error(error.value).kind == "edge.too_many_requests"
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def _called(channel: grpc.Channel, method: str) -> object:
    call: Any = channel.unary_unary(method)  # without codecs: bytes in, bytes out
    return call(b"", timeout=10)


def _call_often(stub: batch_service_pb2_grpc.BatchServiceStub) -> None:
    for _ in range(10):
        stub.ListApis(pb.ListApisRequest())


class Replica:
    """One of the scheduler's processes. Its name is that of its only API."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._health = health.aio.HealthServicer()
        self.port = 0
        self.deadlines: list[float] = []
        """Seconds that callers were ready to wait."""

    @asynccontextmanager
    async def serving(self, *, leads: bool) -> AsyncIterator["Replica"]:
        server = grpc.aio.server()
        listing = grpc.unary_unary_rpc_method_handler(
            self._list_apis, pb.ListApisRequest.FromString, pb.ListApisResponse.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ListApis": listing}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.port = server.add_insecure_port("127.0.0.1:0")
        await self._health.set("", SERVING)
        await self.lead(leads)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def lead(self, leads: bool) -> None:
        await self._health.set(SERVICE, SERVING if leads else NOT_SERVING)

    async def _list_apis(self, request: Any, context: Any) -> pb.ListApisResponse:
        self.deadlines.append(context.time_remaining() or float("inf"))
        return pb.ListApisResponse(apis=[resources_pb2.BatchApi(name=self._name)])


async def test_calls_go_to_the_replica_that_leads_and_to_nobody_while_none_does(tmp_path: Path) -> None:
    async with Replica("one").serving(leads=True) as one, Replica("two").serving(leads=False) as two:
        addresses = [f"127.0.0.1:{replica.port}" for replica in (one, two)]
        starting = edge(tmp_path, open=True, gateway=["127.0.0.1:1"], scheduler=addresses)
        front = await asyncio.to_thread(starting.__enter__)
        try:
            async with grpc.aio.insecure_channel(front.address("edge")) as channel:
                stub: Any = batch_service_pb2_grpc.BatchServiceStub(channel)

                async def answered() -> str:
                    try:
                        answer = await stub.ListApis(pb.ListApisRequest())
                    except grpc.aio.AioRpcError as error:
                        return from_rpc_error(error).kind
                    return str(answer.apis[0].name)

                async def until(expected: str) -> None:
                    async with asyncio.timeout(20):
                        while await answered() != expected:
                            await asyncio.sleep(0.05)

                await until("one")
                assert {await answered() for _ in range(20)} == {"one"}
                await one.lead(False)
                await until("system.unavailable")
                await two.lead(True)
                await until("two")
                await stub.ListApis(pb.ListApisRequest(), timeout=100)
                assert 60 < two.deadlines[-1] < 110
                assert {await answered() for _ in range(20)} == {"two"}
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
