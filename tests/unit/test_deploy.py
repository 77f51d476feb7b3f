"""Deploying files, against the real ledger."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import CortexError
from services.scheduler.adapters.ledger.ledger import SqlLedger
from services.scheduler.adapters.ledger.sqlite.engine import SqliteEngine
from services.scheduler.domain.api_config import load_api, parse_api_file
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.usecases.deploy import Deploy

NOW_NS = 1_800_000_000_123_456_789


class StandingClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now = NOW_NS

    def now_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    ledger = await SqlLedger.open(SqliteEngine(tmp_path / "ledger.db"))
    yield ledger
    await ledger.close()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def deploy(ledger: SqlLedger, clock: StandingClock) -> Deploy:
    return Deploy(ledger, clock)


def api(name: str, *, image: str = "hello", endpoint: str | None = None) -> dict[str, Any]:
    containers = [{"name": "api", "image": image, "command": ["python", "app.py"]}]
    networking = {"endpoint": endpoint} if endpoint else None
    return {"name": name, "kind": "BatchAPI", "pod": {"containers": containers}, "networking": networking}


def file(*apis: dict[str, Any]) -> bytes:
    return json.dumps(apis).encode()  # JSON is YAML


async def run(deploy: Deploy, *apis: dict[str, Any], force: bool = False) -> list[tuple[ApiVersion, str]]:
    return await deploy.deploy("apis.yaml", file(*apis), force)


def spec(version: ApiVersion) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(version.spec_json)
    return document


async def test_a_new_api_is_created(deploy: Deploy, ledger: SqlLedger) -> None:
    ((version, message),) = await run(deploy, api("one"))
    assert message == "created one (BatchAPI)"
    assert await ledger.apis() == [version]
    assert (version.name, version.endpoint, version.deployed_ns) == ("one", "/one", NOW_NS)


async def test_an_api_that_did_not_change_is_left_alone(
    deploy: Deploy, ledger: SqlLedger, clock: StandingClock
) -> None:
    ((first, _),) = await run(deploy, api("one"))
    clock.now += 5_000_000_000
    ((second, message),) = await run(deploy, api("one"))
    assert message == "one (BatchAPI) is up to date"
    assert second == first
    assert await ledger.api_versions("one") == [first]


async def test_an_update_keeps_the_deployment_and_its_beginning(deploy: Deploy, clock: StandingClock) -> None:
    ((first, _),) = await run(deploy, api("one"))
    clock.now += 5_000_000_000
    ((second, message),) = await run(deploy, api("one", image="other"))
    assert message == "updated one (BatchAPI)"
    before, after = spec(first), spec(second)
    assert after["deployment_id"] == before["deployment_id"]
    assert after["initial_deployment_time"] == before["initial_deployment_time"] == NOW_NS
    assert (before["last_updated"], after["last_updated"]) == (1_800_000_000, 1_800_000_005)
    assert {key for key in ("id", "spec_id", "pod_id") if after[key] != before[key]} == {"id", "spec_id", "pod_id"}


async def test_force_deploys_anew_what_did_not_change(deploy: Deploy, clock: StandingClock) -> None:
    ((first, _),) = await run(deploy, api("one"))
    clock.now += 1
    ((second, message),) = await run(deploy, api("one"), force=True)
    assert message == "updated one (BatchAPI)"
    assert spec(second)["deployment_id"] != spec(first)["deployment_id"]
    assert spec(second)["spec_id"] == spec(first)["spec_id"]
    assert spec(second)["initial_deployment_time"] == NOW_NS


async def test_newer_versions_sort_first_even_where_the_clock_was_set_back(
    deploy: Deploy, ledger: SqlLedger, clock: StandingClock
) -> None:
    versions = []
    for image in ("a", "b", "c"):
        ((version, _),) = await run(deploy, api("one", image=image))
        versions.append(version)
        clock.now -= 1_000_000
    assert sorted(versions, key=lambda version: version.api_id) == versions[::-1]
    assert await ledger.api_versions("one") == versions[::-1]


async def test_another_endpoint_or_node_group_is_a_change_of_the_spec_but_not_of_the_pod(deploy: Deploy) -> None:
    ((first, _),) = await run(deploy, api("one"))
    ((second, _),) = await run(deploy, api("one", endpoint="/uno"))
    ((third, _),) = await run(deploy, {**api("one", endpoint="/uno"), "node_groups": ["a"]})
    assert second.endpoint == "/uno"
    assert len({spec(version)["spec_id"] for version in (first, second, third)}) == 3
    assert len({spec(version)["pod_id"] for version in (first, second, third)}) == 1


async def test_the_same_file_in_another_directory_is_a_change(deploy: Deploy) -> None:
    data = file(api("one"))
    messages = []
    for name in ("/a/apis.yaml", "/a/renamed.yaml", "/b/apis.yaml"):
        ((_, message),) = await deploy.deploy(name, data, False)
        messages.append(message)
    assert messages == ["created one (BatchAPI)", "one (BatchAPI) is up to date", "updated one (BatchAPI)"]


async def test_results_come_in_the_file_s_order(deploy: Deploy) -> None:
    await run(deploy, api("b"))
    results = await run(deploy, api("c"), api("b"), api("a"))
    messages = ["created c (BatchAPI)", "b (BatchAPI) is up to date", "created a (BatchAPI)"]
    assert [message for _, message in results] == messages


async def test_a_mistake_in_one_api_changes_none(deploy: Deploy, ledger: SqlLedger) -> None:
    await run(deploy, api("one"))
    before = await ledger.apis()
    with pytest.raises(CortexError, match=r"apis\.yaml: three: kind"):
        await run(deploy, api("one", image="other"), api("two"), {**api("three"), "kind": "TaskAPI"})
    assert await ledger.apis() == before


async def test_an_endpoint_of_another_deployed_api_is_taken(deploy: Deploy, ledger: SqlLedger) -> None:
    await run(deploy, api("one", endpoint="/x"))
    with pytest.raises(
        CortexError, match=r'apis\.yaml: two: networking\.endpoint: "/x" is the endpoint of one'
    ) as caught:
        await run(deploy, api("three"), api("two", endpoint="x/"))
    assert caught.value.kind == "spec.duplicate_endpoint"
    assert [version.name for version in await ledger.apis()] == ["one"]


async def test_apis_of_one_file_may_exchange_endpoints(deploy: Deploy) -> None:
    await run(deploy, api("one", endpoint="/x"), api("two", endpoint="/y"))
    results = await run(deploy, api("one", endpoint="/y"), api("two", endpoint="/x"))
    assert [version.endpoint for version, _ in results] == ["/y", "/x"]


async def test_the_endpoint_of_a_deleted_api_is_free_and_its_name_begins_anew(
    deploy: Deploy, ledger: SqlLedger, clock: StandingClock
) -> None:
    await run(deploy, api("one", endpoint="/x"))
    await ledger.delete_api("one")
    clock.now += 7
    results = await run(deploy, api("one"), api("two", endpoint="/x"))
    assert [message for _, message in results] == ["created one (BatchAPI)", "created two (BatchAPI)"]
    assert spec(results[0][0])["initial_deployment_time"] == NOW_NS + 7


async def test_of_two_at_once_that_want_one_endpoint_one_gets_it(deploy: Deploy, ledger: SqlLedger) -> None:
    attempts = [run(deploy, api(f"api{number}", endpoint="/x")) for number in range(8)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert {getattr(error, "kind", error) for error in errors} == {"spec.duplicate_endpoint"}
    assert (len(errors), len(await ledger.apis())) == (7, 1)


async def test_a_file_without_a_name_is_told_apart_in_messages(deploy: Deploy) -> None:
    with pytest.raises(CortexError, match=r"^configuration: "):
        await deploy.deploy("", b"[]", False)


async def test_the_document_has_the_shape_that_clients_decode(deploy: Deploy) -> None:
    text = """
- name: first
  kind: BatchAPI
  pod: {containers: [{name: a, image: a, command: [a]}]}
- name: hello
  kind: BatchAPI
  pod:
    containers:
      - name: api
        image: hello:1
        command: [python, app.py]
        env: {B: "2", A: "1"}
        readiness_probe: {http_get: {port: 8080}}
        liveness_probe: {exec: {command: [test]}, failure_threshold: 5}
        compute: {cpu: 1.5, mem: 1Gi, shm: 64Mi}
"""
    _, (version, _) = await deploy.deploy("apis.yaml", text.encode(), False)
    document = spec(version)
    submitted = document.pop("submitted_api_spec")
    assert submitted["pod"]["containers"][0]["compute"] == {"cpu": 1.5, "mem": "1Gi", "shm": "64Mi"}
    assert list(document["pod"]["containers"][0]["env"]) == ["B", "A"]
    ids = {key: document.pop(key) for key in ("spec_id", "pod_id", "deployment_id")}
    assert {key: len(value) for key, value in ids.items()} == {"spec_id": 32, "pod_id": 64, "deployment_id": 10}
    api_id = f"{2**63 - 1 - NOW_NS:016x}-{ids['deployment_id']}-{ids['spec_id']}"
    assert (version.api_id, len(api_id)) == (api_id, 60)
    probe = {"initial_delay_seconds": 0, "timeout_seconds": 1, "period_seconds": 10, "success_threshold": 1}
    http = {"http_get": {"path": "/", "port": 8080}, "tcp_socket": None, "exec": None}
    command = {"http_get": None, "tcp_socket": None, "exec": {"command": ["test"]}}
    container = {
        "name": "api",
        "image": "hello:1",
        "command": ["python", "app.py"],
        "args": None,
        "env": {"A": "1", "B": "2"},
        "readiness_probe": {**http, **probe, "failure_threshold": 3},
        "liveness_probe": {**command, **probe, "failure_threshold": 5},
        "compute": {"cpu": "1.5", "mem": "1Gi", "gpu": 0, "inf": 0, "shm": "64Mi"},
    }
    assert document == {
        "name": "hello",
        "kind": "BatchAPI",
        "pod": {"port": 8080, "max_concurrency": 1, "containers": [container]},
        "node_groups": None,
        "networking": {"endpoint": "/hello"},
        "apis": None,
        "autoscaling": None,
        "update_strategy": None,
        "index": 1,
        "file_name": "apis.yaml",
        "id": api_id,
        "key": f"apis/hello/api/{api_id}/0.42-spec.json",
        "initial_deployment_time": NOW_NS,
        "last_updated": NOW_NS // 10**9,
        "metadata_root": "apis/hello/metadata",
    }


async def test_a_stored_version_gives_back_its_configuration(deploy: Deploy) -> None:
    compute = {"cpu": None, "mem": 2**30, "gpu": 2}
    one = api("one")
    one["pod"]["containers"][0] |= {"compute": compute, "args": [], "readiness_probe": {"tcp_socket": {"port": 80}}}
    results = await run(deploy, one, api("two", endpoint="/x"))
    assert [load_api(version) for version, _ in results] == parse_api_file(
        "apis.yaml", file(one, api("two", endpoint="/x"))
    )


async def test_a_deleted_api_that_is_deployed_again_goes_on_with_its_history(
    deploy: Deploy, ledger: SqlLedger, clock: StandingClock
) -> None:
    ((first, _),) = await run(deploy, api("one"))
    await ledger.delete_api("one")
    clock.now -= 1_000_000_000  # the clock was set back
    ((second, message),) = await run(deploy, api("one"))
    assert message == "created one (BatchAPI)"
    assert await ledger.api_versions("one") == [second, first]
    assert second.api_id < first.api_id
    assert spec(second)["deployment_id"] != spec(first)["deployment_id"]


async def test_only_node_groups_that_there_are_may_be_named(ledger: SqlLedger, clock: StandingClock) -> None:
    deploy = Deploy(ledger, clock, frozenset({"gpu", "cpu"}))
    await run(deploy, {**api("one"), "node_groups": ["gpu", "cpu"]}, api("two"))
    message = r'apis\.yaml: four: node_groups\[1\]: there is no node group "tpu";.* "cpu", "gpu"$'
    with pytest.raises(CortexError, match=message) as caught:
        await run(deploy, api("three"), {**api("four"), "node_groups": ["gpu", "tpu"]})
    assert caught.value.kind == "resources.invalid_node_group_selector"
    assert [version.name for version in await ledger.apis()] == ["one", "two"]
