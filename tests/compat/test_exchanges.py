"""Every route and every error of Cortex 0.42, replayed against a real gateway in front of a real scheduler."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from services.gateway.settings import Address
from tests.compat import go_schema, player
from tests.compat.player import Exchange
from tests.integration.gateway_harness import in_front_of
from tests.integration.scheduler_kit import Job, Kit, ScriptedDriver, scheduler

Names = dict[str, str]
ALL = dict(player.exchanges())


@asynccontextmanager
async def operator(folder: Path) -> AsyncIterator[tuple[Kit, Address]]:
    async with scheduler(folder, ScriptedDriver()) as kit, in_front_of(kit.address, folder) as (address, _):
        yield kit, address


async def submitted(kit: Kit) -> str:
    request = pb.SubmitJobRequest(api_name="hello", workers=1, timeout_seconds=600, config_json='{"threshold":0.5}')
    request.item_list.items_json = "[1,2,3]"
    request.item_list.batch_size = 2
    return (await kit.batch.SubmitJob(request)).job.job_id


async def nothing(kit: Kit) -> Names:
    return {}


async def api(kit: Kit) -> Names:
    await kit.deploy()
    return {"api_id": (await kit.batch.GetApi(pb.GetApiRequest(name="hello"))).api.api_id}


async def updated(kit: Kit) -> Names:
    """Deployed three times, deleted before the last."""
    names = await api(kit)
    await kit.batch.DeployApis(pb.DeployApisRequest(file_name="hello.yaml", config=_OTHER))
    second = (await kit.batch.GetApi(pb.GetApiRequest(name="hello"))).api.api_id
    await kit.batch.DeleteApi(pb.DeleteApiRequest(name="hello"))
    return {"old_id": names["api_id"], "second_id": second, **await api(kit)}


async def running(kit: Kit) -> Names:
    names = await api(kit)
    job_id = await submitted(kit)
    worker = await kit.worker()
    await worker.open(credit=1)
    (lease,) = await worker.lease(1)
    await worker.send(worker.result(lease))
    await kit.until(job_id, lambda job: job.status == Job.STATUS_RUNNING and job.batch_counts.succeeded == 1)
    return names | {"job": job_id}


async def succeeded(kit: Kit) -> Names:
    return await _ended(kit, ok=True)


async def failed(kit: Kit) -> Names:
    return await _ended(kit, ok=False)


async def _ended(kit: Kit, *, ok: bool) -> Names:
    names = await api(kit)
    job_id = await submitted(kit)
    worker = await kit.worker()
    await worker.open()
    one, two = await worker.lease(2)
    await worker.send(worker.result(one), worker.result(two, ok=ok))
    await worker.answer_completion()
    await kit.until(job_id, lambda job: job.HasField("end_time"))
    return names | {"job": job_id}


_OTHER = (
    b'[{"name": "hello", "kind": "BatchAPI", "pod": {"containers": [{"name": "a", "image": "b", "command": ["c"]}]}}]'
)
GIVEN: Mapping[str, Callable[[Kit], Awaitable[Names]]] = {
    each.__name__: each for each in (nothing, api, updated, running, succeeded, failed)
}


@pytest.mark.parametrize("name", ALL)
async def test_an_exchange(tmp_path: Path, name: str) -> None:
    exchange = ALL[name]
    async with operator(tmp_path) as (kit, address):
        names = await GIVEN[exchange.given](kit) | {"url": address.url}
        answer = await asyncio.to_thread(player.send, address, exchange, names)
    assert answer.status == exchange.status, answer.body
    if exchange.text is not None:
        assert (answer.headers["content-type"], answer.body.decode()) == ("text/plain; charset=utf-8", exchange.text)
        return
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    assert exchange.go is not None
    go_schema.decode(answer.body, exchange.go)
    assert list(player.differences(exchange.answer, json.loads(answer.body), names)) == []
    if answer.status >= 400:
        assert set(json.loads(answer.body)) == {"kind", "message"}


ROUTES = {
    *("POST /batch/{api_name}", "GET /batch/{api_name}", "DELETE /batch/{api_name}"),
    *("POST /{endpoint}", "GET /{endpoint}", "DELETE /{endpoint}"),
    *("GET /verifycortex", "GET /info", "POST /deploy", "GET /get", "GET /get/{api_name}"),
    *("GET /get/{api_name}/{api_id}", "DELETE /delete/{api_name}", "GET /logs/{api_name}"),
    *("GET /streamlogs/{api_name}", "GET /describe/{api_name}", "POST /refresh/{api_name}"),
}
"""All that Cortex has."""

KINDS = {
    *("job.specify_exactly_one_key", "job.conflicting_fields", "job.not_found", "job.job_is_not_in_progress"),
    *("configreader.too_few_elements", "configreader.must_be_greater_than_or_equal_to", "configreader.cannot_be_empty"),
    *("configreader.must_be_defined", "configreader.unsupported_key", "configreader.invalid_primitive_type"),
    *("batchapi.item_size_exceeds_limit", "batchapi.message_exceeds_max_size", "aws.invalid_s3_path"),
    *("resources.api_not_deployed", "resources.api_id_not_found", "resources.operation_is_only_supported_for_kind"),
    *("endpoints.query_param_required", "endpoints.logs_job_id_required", "endpoints.form_file_must_be_provided"),
    *("endpoints.api_version_mismatch", "spec.malformed_config", "spec.duplicate_name", "spec.duplicate_endpoint"),
    *("spec.duplicate_endpoint_in_one_deploy", "spec.duplicate_container_name", "spec.specify_exactly_one_field"),
    *("spec.compute_resource_conflict", "spec.shm_cannot_exceed_mem", "spec.cortex_prefixed_env_var_not_allowed"),
    "spec.field_must_be_specified_for_kind",
}
"""All that programs may look for, but for those that need a store of objects or an STS."""


def _route(exchange: Exchange) -> str:
    method, target = exchange.request.split(" ")
    first, *rest = target.partition("?")[0].strip("/").split("/")
    if first in ("hello", "nope"):
        return f"{method} /{{endpoint}}"
    return " ".join((method, "/".join(("", first, *("{api_name}", "{api_id}")[: len(rest)]))))


def test_every_route_and_every_kind_of_error_has_an_exchange() -> None:
    assert {_route(exchange) for exchange in ALL.values()} == ROUTES
    kinds: set[Any] = {exchange.answer["kind"] for exchange in ALL.values() if exchange.go == "ErrorResponse"}
    assert kinds >= KINDS


@pytest.mark.parametrize(
    "text",
    [
        '{"log_url":7}',
        '{"log_url":null}',
        "{}",
    ],
)
def test_the_schema_is_as_strict_as_go(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        go_schema.decode(text.encode(), "LogResponse")


@pytest.mark.parametrize("number", ["1.0", "1e2", '"1"', "true", "9223372036854775808"])
def test_integers_stay_integers(number: str) -> None:
    text = f'{{"kind":"BatchAPI","name":"a","id":"b","last_updated":{number}}}'
    with pytest.raises(msgspec.ValidationError):
        go_schema.decode(f'[{{"metadata":{text},"batch_job_statuses":[]}}]'.encode(), "[]ListedAPI")
