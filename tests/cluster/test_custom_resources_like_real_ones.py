"""Custom resources: schemas, rules, defaults, the status apart, and tables."""

import uuid
from collections.abc import AsyncIterator

import pytest

from services.common.errors import CortexError
from services.common.kubernetes import Object, Resource
from tests.cluster.kit import AnyCluster
from tests.cluster.objects import eventually, true_conditions

_DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
_SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
        "names": {"type": "array", "items": {"type": "string", "minLength": 2}, "maxItems": 2},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "fixed": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it is fixed"}],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.names) || self.names.size() <= self.size", "message": "too many names"}
    ],
}


@pytest.fixture
async def things(cluster: AnyCluster) -> AsyncIterator[Resource]:
    """A resource of the test's own."""
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    schema = {
        "type": "object",
        "properties": {"spec": _SPEC, "status": {"type": "object", "properties": {"done": {"type": "integer"}}}},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    body = {"apiVersion": _DEFINITIONS.api_version, "kind": _DEFINITIONS.kind, "metadata": {"name": f"things.{group}"}}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    await cluster.client.apply(_DEFINITIONS, None, {**body, "spec": spec}, "tests")

    async def established() -> bool:
        found = await cluster.client.get(_DEFINITIONS, None, f"things.{group}") or {}
        return "Established" in true_conditions(found.get("status") or {})

    await eventually("the definition is established", established)
    resource = Resource(f"{group}/v1", "Thing", "things")

    async def served() -> bool:
        try:
            await cluster.client.list(resource, cluster.namespace)
        except CortexError:
            return False
        return True

    await eventually("the resource is served", served)
    yield resource
    await cluster.client.delete(_DEFINITIONS, None, f"things.{group}")


def _thing(resource: Resource, **spec: object) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": "Thing",
        "metadata": {"name": "one"},
        "spec": {"size": 2, **spec},
    }


async def test_defaults_are_filled_in_and_unknown_fields_go(cluster: AnyCluster, things: Resource) -> None:
    body = _thing(things, unknown=1, free={"anything": [1]})
    made = await cluster.client.create(things, cluster.namespace, {**body, "status": {"done": 1}})
    assert made["spec"] == {"size": 2, "color": "red", "free": {"anything": [1]}}
    assert "status" not in made
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"size": 0}, "spec.size in body should be greater than or equal to 1"),
        ({"size": 11}, "spec.size in body should be less than or equal to 10"),
        ({"size": "2"}, "spec.size in body must be of type integer"),
        ({"color": "blue"}, 'spec.color: Unsupported value: "blue": supported values: "red", "green"'),
        ({"names": ["a"]}, "spec.names[0] in body should be at least 2 chars long"),
        ({"names": ["aa", "bb", "cc"]}, "spec.names: Too many: 3: must have at most 2 items"),
        ({"size": 1, "names": ["aa", "bb"]}, "too many names"),
    ],
)
async def test_the_schema_is_kept(cluster: AnyCluster, things: Resource, spec: Object, sentence: str) -> None:
    with pytest.raises(CortexError) as caught:
        await cluster.client.create(things, cluster.namespace, _thing(things, **spec))
    assert sentence in caught.value.message


async def test_rules_about_changes_are_kept(cluster: AnyCluster, things: Resource) -> None:
    await cluster.client.create(things, cluster.namespace, _thing(things, fixed="a"))
    await cluster.client.patch(things, cluster.namespace, "one", {"spec": {"size": 3}})
    with pytest.raises(CortexError) as caught:
        await cluster.client.patch(things, cluster.namespace, "one", {"spec": {"fixed": "b"}})
    assert "it is fixed" in caught.value.message


async def test_the_status_is_written_apart(cluster: AnyCluster, things: Resource) -> None:
    await cluster.client.create(things, cluster.namespace, _thing(things))
    told = await cluster.client.patch(
        things, cluster.namespace, "one", {"spec": {"size": 5}, "status": {"done": 1}}, "status"
    )
    assert (told["spec"]["size"], told["status"], told["metadata"]["generation"]) == (2, {"done": 1}, 1)
    changed = await cluster.client.patch(things, cluster.namespace, "one", {"spec": {"size": 5}, "status": {"done": 2}})
    assert (changed["spec"]["size"], changed["status"], changed["metadata"]["generation"]) == (5, {"done": 1}, 2)
