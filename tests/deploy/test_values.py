"""Values that make no sense are refused, with a sentence."""

import re
from collections.abc import Iterator

import helm_python as helm
import pytest
import yaml

from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings
from tests.deploy.chart import CHART, CLOSED, Json, render

OPEN = {"edge": {"open": True, "plaintext": True}}
LEDGER = {"ledger": CLOSED["ledger"]}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "where is the ledger"),
        ({**LEDGER, "postgresql": {"enabled": True}}, "there is one ledger"),
        (LEDGER, "who may come in"),
        ({**LEDGER, "edge": {"open": True}}, "tokens would travel in the clear"),
        ({**LEDGER, "edge": {"open": True, "plaintext": True, "jwt": {"issuer": "x"}}}, "contradict each other"),
        ({**LEDGER, "edge": {"plaintext": True, "jwt": {"issuer": "x"}}}, "needs an issuer"),
        ({**LEDGER, **OPEN, "gateway": {"awsIam": {"enabled": True}}}, "whose requests are good"),
        ({**LEDGER, **OPEN, "workers": {"createNamespace": True}}, "its name"),
    ],
)
def test_what_has_no_default_must_be_said_and_contradictions_are_refused(values: Json, sentence: str) -> None:
    with pytest.raises(helm.HelmRenderError, match=sentence):
        render(values)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"replicas": 2}, "replicas"),
        ({"scheduler": {"resources": {"limits": {"memory": "2GB"}}}}, "2GB"),
        ({"chaining": {"namespace": ""}}, "namespace"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"image": {"digest": "sha256:123"}}}, "/gateway/image/digest"),
        ({"imageRegistry": "registry.example.org"}, "/imageRegistry"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"ledger": {"url": "mysql://db"}}, "/ledger/url"),
        ({"edge": {"jwt": {"jwksUrl": "http://keys"}}}, "/edge/jwt/jwksUrl"),
        ({"edge": {"inCluster": {"allow": "all"}}}, "/edge/inCluster/allow"),
        ({"workers": {"nodeGroups": [{"name": "gpu", "priority": 101}]}}, "/workers/nodeGroups/0/priority"),
        ({"workers": {"graceSeconds": 5}}, "/workers/graceSeconds"),
        ({"publicUrl": "batch.example.org"}, "/publicUrl"),
    ],
)
def test_wrong_values_are_refused_where_they_stand(values: Json, where: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=re.escape(where)):
        render(CLOSED, values)


def _maps(schema: Json) -> Iterator[Json]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from _maps(value)


def test_the_schema_knows_every_value_and_lets_no_other_pass() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert all(one["additionalProperties"] is False for one in _maps(schema))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults)


def test_every_value_has_a_comment_or_stands_below_one() -> None:
    """A top-level key without a word about it is one that nobody finds."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"[a-zA-Z]+:", line) and not before.startswith("#")
    ]
    assert bare == []


def test_defaults_of_lists_are_the_drivers() -> None:
    workers = yaml.safe_load((CHART / "values.yaml").read_text())["workers"]
    driver = KubernetesWorkerSettings(dequeuer_image="", scheduler_address="", public_url="")
    assert workers["nodeSelector"] == driver.node_selector
    assert tuple(workers["tolerations"]) == driver.tolerations
    assert (workers["nodeGroupLabel"], workers["graceSeconds"]) == (driver.node_group_label, driver.grace_seconds)
