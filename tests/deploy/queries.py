"""What dashboards and alerts ask Prometheus for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "grafana").glob("*.json")}
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
TARGETS = frozenset({"namespace", "pod", "instance", "service", "job"})
"""Labels that Prometheus adds to what it scrapes."""


def queries() -> Iterator[tuple[str, str]]:
    """Where each stands, and its text, with Grafana's variables filled in."""
    for name, rule in ALERTS.items():
        yield f"alert {name}", rule["expr"]
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"dashboard {name}, {panel['title']}", _filled(target["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                assert asked, variable
                yield f"dashboard {name}, variable {variable['name']}", f"sum by ({asked[2]}) ({_filled(asked[1])})"


def _filled(text: str) -> str:
    return text.replace("$__rate_interval", "1m").replace("$api", ".*").replace("$job", ".*")


@dataclass(frozen=True)
class Asked:
    """One selector, with the labels by which what it selects is grouped anywhere around it."""

    metric: str
    matchers: tuple[promql_parser.Matcher, ...]
    grouped_by: frozenset[str]


def selectors(query: str) -> list[Asked]:
    """All selectors of a query. Raises `ValueError` when it is not PromQL."""
    found: list[Asked] = []
    groups: list[frozenset[str]] = []

    def enter(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            groups.append(frozenset(node.modifier.labels if node.modifier is not None else ()))
        if isinstance(node, promql_parser.VectorSelector):
            labels = frozenset[str]().union(*groups)
            found.append(Asked(node.name or "", tuple(node.matchers.matchers), labels))

    def leave(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            groups.pop()

    promql_parser.walk(promql_parser.parse(query), enter, leave)
    return found
