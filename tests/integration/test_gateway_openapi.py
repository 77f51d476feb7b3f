"""The OpenAPI document says what is served, all of it and nothing else, and its examples are like real answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer
from starlette.routing import Route, WebSocketRoute

from cortex.batch.v1.resources_pb2 import Batch
from services.common.settings import Environment
from services.gateway import settings, wiring
from services.gateway.metrics import RequestMetrics
from tests.integration.gateway_harness import JOB_ID, Gateway, running

METHODS = {"get", "post", "delete", "put", "patch", "head", "options"}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as it:
        yield it


@pytest.fixture
async def document(gateway: Gateway) -> dict[str, Any]:
    answer = await gateway.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, method, operation


def resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = document
        for key in value["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        value = found
    return value


async def test_every_route_and_method_is_in_the_document_and_nothing_else(document: dict[str, Any]) -> None:
    configured = settings.read(Environment({"CORTEX_SCHEDULER_ADDRESS": "unix:/nowhere"}))
    async with wiring.connected(configured, NoOpTracer()) as neighbours:
        routing = wiring.routing(neighbours, configured, "http://x", RequestMetrics(), asyncio.Event())
    routes = [route for route in routing.routes if isinstance(route, Route)]
    sockets = {route.path for route in routing.routes if isinstance(route, WebSocketRoute)}
    assert len(routes) + len(sockets) == len(routing.routes)
    assert sockets < {route.path for route in routes}  # a request that asks for no websocket is told so
    served = {(route.path, method.lower()) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    served |= {("/{endpoint}", method.lower()) for method in (routing.endpoints.methods or ()) if method != "HEAD"}
    assert {(path, method) for path, method, _ in operations(document)} == served


async def test_the_document_is_whole(document: dict[str, Any], gateway: Gateway) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": gateway.address.url}]
    assert document["info"]["version"] == "0.1.0"
    tags = {tag["name"] for tag in document["tags"]}
    names = []
    for path, method, operation in operations(document):
        names.append(operation["operationId"])
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert operation["responses"]
        parameters = [*document["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        in_path = {found["name"] for found in (resolve(document, p) for p in parameters) if found["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}, (path, method)
        assert ("requestBody" in operation) == (method in ("post", "patch") and "refresh" not in path)
        for status, response in operation["responses"].items():
            found = resolve(document, response)
            assert found["description"], (path, method, status)
            for content in found["content"].values():
                assert "example" in content or path in ("/openapi.json", "/docs"), (path, method, status)
    assert len(set(names)) == len(names)


async def test_every_reference_leads_somewhere_and_every_component_is_used(document: dict[str, Any]) -> None:
    used: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                used.add(value["$ref"])
                resolve(document, value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    components = {f"#/components/{kind}/{name}" for kind, named in document["components"].items() for name in named}
    assert used == components


def mistakes(document: dict[str, Any], schema: dict[str, Any], value: Any, place: str = "") -> Iterator[str]:
    """Where a value is not what a schema of this document says; unknown keys count, unless the schema is open."""
    schema = resolve(document, schema)
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    allowed = schema.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if value is None:
        yield from [] if "null" in allowed or not allowed else [f"{place}: null"]
        return
    if allowed and not any(isinstance(value, types[name]) for name in allowed if name != "null"):
        yield f"{place}: {value!r} is not of type {allowed}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from mistakes(document, schema.get("items", {}), item, f"{place}[{index}]")
    if isinstance(value, dict):
        properties, required = dict(schema.get("properties", {})), set(schema.get("required", ()))
        for part in schema.get("allOf", ()):
            inherited = resolve(document, part)
            properties |= inherited["properties"]
            required |= set(inherited["required"])
        yield from (f"{place}.{name}: missing" for name in required - set(value))
        for name, inner in value.items():
            if name in properties:
                yield from mistakes(document, properties[name], inner, f"{place}.{name}")
            elif properties:
                yield f"{place}.{name}: not in the schema"


async def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for path, method, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for body in [*bodies, *operation["responses"].values()]:
            for content in resolve(document, body)["content"].values():
                if "example" in content and "multipart/form-data" not in resolve(document, body)["content"]:
                    assert list(mistakes(document, content["schema"], content["example"])) == [], (path, method)
                    checked += 1
    assert checked > 50


async def test_real_answers_fit_the_schemas(document: dict[str, Any], gateway: Gateway) -> None:
    asked = {
        "/batch/{api_name}": f"/batch/digits?jobID={JOB_ID}",
        "/batch/{api_name}/{job_id}/batches": f"/batch/digits/{JOB_ID}/batches?state=failed",
        "/batch/{api_name}/{job_id}/trace": f"/batch/digits/{JOB_ID}/trace",
        "/get": "/get",
        "/get/{api_name}": "/get/digits",
        "/get/{api_name}/{api_id}": "/get/digits/v1",
        "/info": "/info",
        "/verifycortex": "/verifycortex",
        "/logs/{api_name}": f"/logs/digits?jobID={JOB_ID}",
    }
    gateway.asked.batches = [
        Batch(index=3, state=Batch.STATE_FAILED, items_json="[1]"),
        Batch(state=Batch.STATE_PENDING, items_json="[]"),
    ]
    for path, target in asked.items():
        answer = await gateway.get(target)
        response = resolve(document, document["paths"][path]["get"]["responses"]["200"])
        assert list(mistakes(document, response["content"]["application/json"]["schema"], answer.json)) == [], path
    submission = resolve(document, {"$ref": "#/components/requestBodies/submission"})["content"]["application/json"]
    example = json.dumps(submission["example"])
    submitted = await gateway.submit(example)
    assert list(mistakes(document, {"$ref": "#/components/schemas/Job"}, submitted.json)) == []
    assert "warnings" not in submitted.json
    retried = await gateway.submit(b"", f"/batch/digits/{JOB_ID}/retry")
    assert list(mistakes(document, {"$ref": "#/components/schemas/Job"}, retried.json)) == []


async def test_the_page_runs_what_it_brings_and_nothing_else(gateway: Gateway) -> None:
    page = await gateway.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; style-src 'sha256-")
    for outside in (b"http://", b"https://", b"src=", b"@import", b" url("):
        assert outside not in page.body
