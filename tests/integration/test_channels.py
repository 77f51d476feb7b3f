"""Channels to a scheduler with replicas, with two real servers of which one leads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from cortex.batch.v1.resources_pb2 import BatchApi
from services.common.channels import has_replicas, open_channel
from services.common.names import BATCH_SERVICE, CHANNEL_OPTIONS
from services.gateway.scheduler import Scheduler
from tests.waiting import SECONDS as PATIENCE_S

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Replica:
    """Answers one method with its name, when the test lets it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.called = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.health = health.aio.HealthServicer()
        self.port = 0
        self.server = grpc.aio.server()

    async def open(self, port: int = 0) -> None:
        self.server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(
            self.list_apis,
            request_deserializer=pb.ListApisRequest.FromString,
            response_serializer=pb.ListApisResponse.SerializeToString,
        )
        self.server.add_registered_method_handlers(BATCH_SERVICE, {"ListApis": method})
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        await self.health.set("", SERVING)
        await self.health.set(BATCH_SERVICE, NOT_SERVING)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        await self.server.start()

    async def lead(self, leads: bool = True) -> None:
        await self.health.set(BATCH_SERVICE, SERVING if leads else NOT_SERVING)

    async def die(self) -> None:
        await self.server.stop(None)

    async def list_apis(self, request: pb.ListApisRequest, context: object) -> pb.ListApisResponse:
        self.asked += 1
        self.called.set()
        await self.answers.wait()
        return pb.ListApisResponse(apis=[BatchApi(name=self.name)])


@dataclass
class Replicas:
    first: Replica
    second: Replica
    channel: grpc.aio.Channel

    async def ask(self, *, patient: bool = False) -> str:
        stub = batch_service_pb2_grpc.BatchServiceStub(self.channel)
        answer = await stub.ListApis(pb.ListApisRequest(), timeout=PATIENCE_S, wait_for_ready=patient)
        return str(answer.apis[0].name)


@asynccontextmanager
async def replicas() -> AsyncIterator[Replicas]:
    """Two, of which the first leads."""
    first, second = Replica("first"), Replica("second")
    async with AsyncExitStack() as stack:
        for replica in (first, second):
            await replica.open()
            stack.push_async_callback(replica.die)
        await first.lead()
        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"
        yield Replicas(first, second, await stack.enter_async_context(open_channel(target, CHANNEL_OPTIONS)))


async def test_every_call_goes_to_the_one_that_leads() -> None:
    async with replicas() as both:
        assert {await both.ask(patient=True) for _ in range(20)} == {"first"}
        assert both.second.asked == 0


async def test_calls_follow_the_lead() -> None:
    async with replicas() as both:
        assert await both.ask(patient=True) == "first"
        await both.first.lead(False)
        await both.second.lead()
        while (answered := await both.ask(patient=True)) == "first":
            pass  # until the watch has told
        assert answered == "second"
        assert {await both.ask() for _ in range(20)} == {"second"}


async def test_a_call_breaks_with_its_server_and_the_next_goes_to_the_new_leader() -> None:
    async with replicas() as both:
        both.first.answers.clear()
        call = asyncio.create_task(both.ask(patient=True))
        async with asyncio.timeout(PATIENCE_S):
            await both.first.called.wait()
        await both.first.die()
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await call
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        await both.second.lead()
        assert await both.ask(patient=True) == "second"


async def test_while_nobody_leads_a_call_waits_or_fails_as_it_likes() -> None:
    async with replicas() as both:
        assert await both.ask(patient=True) == "first"
        await both.first.die()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await both.ask()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        waiting = asyncio.create_task(both.ask(patient=True))
        await both.second.lead()
        assert await waiting == "second"


async def test_the_gateway_waits_for_the_next_leader_and_asks_again() -> None:
    async with replicas() as both:
        scheduler = Scheduler(both.channel, replicated=True)
        both.first.answers.clear()
        asking = asyncio.create_task(scheduler.apis())
        async with asyncio.timeout(PATIENCE_S):
            await both.first.called.wait()
        await both.first.die()
        await both.second.lead()
        assert [api.name for api in await asking] == ["second"]


async def test_a_leader_that_comes_back_as_a_standby_is_not_asked() -> None:
    async with replicas() as both:
        assert await both.ask(patient=True) == "first"
        port = both.first.port
        await both.first.die()
        await both.second.lead()
        assert await both.ask(patient=True) == "second"
        await both.first.open(port)
        asked = both.first.asked
        assert {await both.ask() for _ in range(20)} == {"second"}
        assert both.first.asked == asked


@pytest.mark.parametrize(
    ("target", "several"),
    [
        ("unix:/run/s", False),
        ("127.0.0.1:8889", False),
        ("scheduler:8889", False),
        ("dns:///scheduler-replicas:8889", True),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", True),
    ],
)
def test_which_targets_have_replicas(target: str, several: bool) -> None:
    assert has_replicas(target) is several
