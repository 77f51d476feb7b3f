"""THE status table over a real server: every category crosses it and comes back as the same error."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1 import batch_service_pb2_grpc
from services.common.errors import Category, CortexError
from services.common.grpc_errors import STATUS_OF_CATEGORY, ErrorInterceptor, from_rpc_error

EXPECTED = {
    Category.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Category.TOO_LARGE: grpc.StatusCode.OUT_OF_RANGE,
    Category.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Category.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Category.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Category.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Category.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Category.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Category.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Raising(batch_service_pb2_grpc.BatchServiceServicer):
    """Raises what the request's name asks for."""

    def error(self, name: str) -> Exception:
        if name == "bug":
            return RuntimeError("a bug")
        if name.startswith("many "):
            return CortexError("area.some_kind", name)
        return CortexError("area.some_kind", f"sentence about {name}", Category(name))

    async def GetApi(self, request: pb.GetApiRequest, context: Any) -> pb.GetApiResponse:  # noqa: N802  # gRPC's name
        raise self.error(request.name)

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:  # noqa: N802  # gRPC's name
        yield pb.WatchJobResponse()
        raise self.error(request.api_name)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    batch_service_pb2_grpc.add_BatchServiceServicer_to_server(Raising(), server)  # type: ignore[abstract]  # what is not called is not there
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def test_the_table_is_whole() -> None:
    assert STATUS_OF_CATEGORY == EXPECTED
    assert set(EXPECTED) == set(Category)


@pytest.mark.parametrize("category", Category)
async def test_an_error_crosses_a_call_unchanged(channel: grpc.aio.Channel, category: Category) -> None:
    stub = batch_service_pb2_grpc.BatchServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetApi(pb.GetApiRequest(name=category.value))
    assert raised.value.code() is EXPECTED[category]
    error = from_rpc_error(raised.value)
    assert (error.kind, error.message, error.category) == (
        "area.some_kind",
        f"sentence about {category.value}",
        category,
    )


async def test_an_error_crosses_a_stream_after_its_first_message(channel: grpc.aio.Channel) -> None:
    call = batch_service_pb2_grpc.BatchServiceStub(channel).WatchJob(pb.WatchJobRequest(api_name="conflict"))
    answers = aiter(call)
    assert await anext(answers) == pb.WatchJobResponse()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await anext(answers)
    assert from_rpc_error(raised.value).category is Category.CONFLICT


@pytest.mark.parametrize("character", ["a", "\n", "é", "𝒳"])
async def test_a_message_that_headers_cannot_hold_is_shortened(channel: grpc.aio.Channel, character: str) -> None:
    name = "many " + character * 20_000
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await batch_service_pb2_grpc.BatchServiceStub(channel).GetApi(pb.GetApiRequest(name=name))
    error = from_rpc_error(raised.value)
    assert error.kind == "area.some_kind"
    assert error.message.startswith("many " + character * 200)
    assert error.message.endswith("...")


async def test_a_bug_is_told_as_one_and_does_not_end_the_server(channel: grpc.aio.Channel) -> None:
    stub = batch_service_pb2_grpc.BatchServiceStub(channel)
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetApi(pb.GetApiRequest(name="bug"))
        assert from_rpc_error(raised.value).kind == "system.unexpected_error"


async def test_nobody_there_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("unix:/nonexistent/socket") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await batch_service_pb2_grpc.BatchServiceStub(channel).GetApi(pb.GetApiRequest(name="x"))
    assert from_rpc_error(raised.value).category is Category.UNAVAILABLE


async def test_health_can_be_watched_through_it(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types leave Watch out
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service="nobody")):
        assert answer.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        break
