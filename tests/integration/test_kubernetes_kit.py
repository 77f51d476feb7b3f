"""The kit `services.common.kubernetes` against the tests' own API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from services.common.errors import Category, CortexError
from services.common.kubernetes import CONFIG_MAPS, Change, Cluster, Followed, Object, client, errors, follow
from tests.cluster.kit import TestCluster

NAMESPACE = "default"


@pytest.fixture
async def server() -> AsyncIterator[TestCluster]:
    async with TestCluster() as server:
        yield server


@pytest.fixture
async def cluster(server: TestCluster) -> AsyncIterator[Cluster]:
    cluster = await Cluster.connect({"KUBECONFIG": str(server.kubeconfig)})
    try:
        yield cluster
    finally:
        await cluster.close()


def config_map(name: str, value: str = "", **labels: str) -> Object:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


@dataclass
class Follower:
    """What someone who follows knows."""

    values: dict[str, str] = field(default_factory=dict)
    lists: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def knows(self, condition: Callable[[], bool]) -> None:
        """Wait until it does."""
        async with asyncio.timeout(30):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def run(self, cluster: Cluster, labels: str = "") -> None:
        async with aclosing(follow(cluster, CONFIG_MAPS, NAMESPACE, labels)) as news:
            async for told in news:
                match told:
                    case Followed(objects):
                        self.lists += 1
                        self.values = {each["metadata"]["name"]: each["data"]["value"] for each in objects}
                    case Change(changed, deleted):
                        name = changed["metadata"]["name"]
                        if deleted:
                            self.values.pop(name, None)
                        else:
                            self.values[name] = changed["data"]["value"]
                self.news.set()


async def test_objects_are_made_read_changed_and_deleted(cluster: Cluster) -> None:
    assert cluster.namespace == NAMESPACE
    assert await cluster.get(CONFIG_MAPS, NAMESPACE, "one") is None
    made = await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("one", "1"))
    with pytest.raises(CortexError) as refused:
        await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("one"))
    assert refused.value.kind == errors.EXISTS
    await cluster.patch(CONFIG_MAPS, NAMESPACE, "one", {"data": {"value": "2"}})
    await cluster.patch(CONFIG_MAPS, NAMESPACE, "one", [{"op": "add", "path": "/data/more", "value": "3"}])
    await cluster.apply(CONFIG_MAPS, NAMESPACE, config_map("one", "4"), manager="tests")
    found = await cluster.get(CONFIG_MAPS, NAMESPACE, "one")
    assert found is not None
    assert found["data"] == {"value": "4", "more": "3"}
    assert not await cluster.delete(CONFIG_MAPS, NAMESPACE, "one", uid="another")
    assert await cluster.delete(CONFIG_MAPS, NAMESPACE, "one", uid=made["metadata"]["uid"])
    assert not await cluster.delete(CONFIG_MAPS, NAMESPACE, "one")


async def test_a_write_that_rests_on_an_old_version_is_refused(cluster: Cluster) -> None:
    old = await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("one", "1"))
    await cluster.replace(CONFIG_MAPS, NAMESPACE, old | {"data": {"value": "2"}})
    with pytest.raises(CortexError) as refused:
        await cluster.replace(CONFIG_MAPS, NAMESPACE, old)
    assert refused.value.kind == errors.CONFLICT
    with pytest.raises(CortexError) as failed:
        await cluster.patch(CONFIG_MAPS, NAMESPACE, "one", [{"op": "test", "path": "/data/value", "value": "1"}])
    assert failed.value.kind == errors.INVALID


async def test_a_list_of_many_pages_is_whole(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE", 3)
    for number in range(8):
        await cluster.create(CONFIG_MAPS, NAMESPACE, config_map(f"map-{number}", kind="wanted"))
    await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("other"))
    found, version = await cluster.list(CONFIG_MAPS, NAMESPACE, "kind=wanted")
    assert [each["metadata"]["name"] for each in found] == [f"map-{number}" for number in range(8)]
    assert version


async def test_a_server_that_is_away_is_told_as_unavailable(server: TestCluster, cluster: Cluster) -> None:
    await server.server.stop()
    with pytest.raises(CortexError, match="does not answer") as silent:
        await cluster.get(CONFIG_MAPS, NAMESPACE, "one")
    assert silent.value.category is Category.UNAVAILABLE


async def test_a_follower_hears_of_everything_through_breaks_and_forgotten_versions(
    server: TestCluster, cluster: Cluster
) -> None:
    await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("first", "1"))
    follower = Follower()
    task = asyncio.create_task(follower.run(cluster))
    try:
        await follower.knows(lambda: follower.values.get("first") == "1")
        await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("second", "x" * 500_000))
        await follower.knows(lambda: len(follower.values.get("second", "")) == 500_000)
        server.cut()
        await cluster.delete(CONFIG_MAPS, NAMESPACE, "first")
        await cluster.patch(CONFIG_MAPS, NAMESPACE, "second", {"data": {"value": "2"}})
        await follower.knows(lambda: follower.values.get("second") == "2" and "first" not in follower.values)
        assert follower.lists == 1  # it went on where it was
        await server.server.stop()
        server.api.store.compact()
        await server.server.start()
        await cluster.delete(CONFIG_MAPS, NAMESPACE, "second")
        await follower.knows(lambda: "second" not in follower.values)
    finally:
        task.cancel()


async def test_a_follower_of_some_hears_that_one_is_no_longer_selected(cluster: Cluster) -> None:
    await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("one", "1", kind="wanted"))
    await cluster.create(CONFIG_MAPS, NAMESPACE, config_map("other", "1"))
    follower = Follower()
    task = asyncio.create_task(follower.run(cluster, "kind=wanted"))
    try:
        await follower.knows(lambda: list(follower.values) == ["one"])
        await cluster.patch(CONFIG_MAPS, NAMESPACE, "one", {"metadata": {"labels": {"kind": None}}})
        await follower.knows(lambda: follower.values == {})
    finally:
        task.cancel()
