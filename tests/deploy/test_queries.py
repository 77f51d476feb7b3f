"""Dashboards and alerts ask for nothing but what a running system tells."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest

from tests.deploy.queries import ALERTS, DASHBOARDS, TARGETS, queries, selectors
from tests.e2e.system import system
from tests.edge_kit import edge
from tests.exposition import Labels, samples
from tests.ports import unused_port
from tests.waiting import wait_for

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
SEEN_IN_TROUBLE = {"cortex_gateway_requests_total": {"status"}}
"""Labels whose wanted values only trouble makes."""

Series = dict[str, dict[Labels, float]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """All series of a system that has done a job, does another, and has an edge in front."""
    directory = tmp_path_factory.mktemp("metrics")
    metrics = f"127.0.0.1:{unused_port()}"
    with system(directory, {"CORTEX_METRICS_ADDRESS": metrics}) as running:
        running.deploy()
        running.wait(running.submit([1, "fail"]))
        at_work = running.submit(["hang"])
        wait_for("a batch is out", lambda: running.job(at_work)["batch_counts"]["leased"])
        found: Series = {}
        with edge(
            directory / "edge",
            open=True,
            observe="127.0.0.1:0",
            gateway=[running.url.removeprefix("http://")],
            scheduler=[running.grpc_address],
        ) as in_front:
            with urllib.request.urlopen(f"{in_front.url}/info", timeout=10) as answer:
                assert answer.status == 200
            found |= _scraped(f"http://{in_front.address('observe')}/stats/prometheus")
        for address in (running.url, f"http://{metrics}"):
            found |= _scraped(f"{address}/metrics")
        running.client.stop_job("hello", at_work)
        return found


def _scraped(url: str) -> Series:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return samples(answer.read().decode())


def test_every_query_asks_for_series_and_labels_that_there_are(told: Series) -> None:
    wrong = list(_wrong(told))
    assert wrong == []
    assert len(list(queries())) > 50


def _wrong(told: Series) -> Iterator[str]:
    for where, query in queries():
        for asked in selectors(query):
            if asked.metric not in told:
                yield f"{where}: nobody tells {asked.metric}"
                continue
            every = [dict(labels) for labels in told[asked.metric]]
            known = {label for labels in every for label in labels} | TARGETS
            yield from (f"{where}: {asked.metric} has no {label}" for label in asked.grouped_by - known)
            for matcher in asked.matchers:
                if matcher.name in SEEN_IN_TROUBLE.get(asked.metric, ()):
                    continue
                if not any(_matches(matcher, labels.get(matcher.name, "")) for labels in every):
                    yield f"{where}: no {asked.metric} has {matcher}"


def _matches(matcher: promql_parser.Matcher, value: str) -> bool:
    if matcher.op == promql_parser.MatchOp.Equal:
        return value == matcher.value
    assert matcher.op == promql_parser.MatchOp.Re, "the others select what is not there, too"
    return re.fullmatch(matcher.value, value) is not None


def test_a_query_for_what_is_not_there_is_found(told: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    for expr in ("cortex_nothing", 'cortex_job_workers{state="asleep"}', "sum by (mood) (cortex_scheduler_jobs)"):
        monkeypatch.setitem(ALERTS["CortexJobsHeldUp"], "expr", expr)
        assert len(list(_wrong(told))) == 1, expr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_it_means_and_where_to_read_what_to_do(name: str) -> None:
    annotations = ALERTS[name]["annotations"]
    assert annotations["summary"].endswith(".")
    assert annotations["description"]
    assert annotations["runbook"] == f"docs/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n" in RUNBOOKS.read_text()
    assert ALERTS[name]["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_one_that_grafana_shows(name: str) -> None:
    board = DASHBOARDS[name]
    assert board["uid"] == f"cortex-batch-{name}"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [panel["gridPos"] for panel in board["panels"]]
    taken = [(x, place["y"]) for place in places for x in range(place["x"], place["x"] + place["w"])]
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) < 24


def test_a_jobs_row_leads_to_its_trace() -> None:
    (override,) = DASHBOARDS["jobs"]["panels"][0]["fieldConfig"]["overrides"]
    tempo, kept = (link["url"] for link in override["properties"][0]["value"])
    assert "span.cortex.job_id" in tempo
    assert kept == "${url}/batch/${__data.fields.api_name}/${__data.fields.job_id}/trace"
