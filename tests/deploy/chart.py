"""The chart, rendered by Helm's own engine (in a wheel)."""

from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

Json = dict[str, Any]

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "cortex-batch"
NAMESPACE = "cortex"
VALUES = {path.stem.removeprefix("values-"): yaml.safe_load(path.read_text()) for path in CHART.glob("values-*.yaml")}
"""The value files beside the chart, by what they are for."""
CLOSED: Json = {
    "ledger": {"url": "postgresql://cortex:secret@db/cortex"},
    "edge": {
        "tls": {"secretName": "tls"},
        "jwt": {"issuer": "https://id.example.org", "audiences": ["batch"], "jwksUrl": "https://id.example.org/keys"},
    },
}
"""The least that must be said."""

MORE = {
    "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboards")},
    "controller": {"allNamespaces": True},
    "collector": {"storage": {"size": "1Gi"}},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "nodeSelector": {"pool": "system"},
    "imagePullSecrets": ["registry"],
    "networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
}
VARIANTS: dict[str, Json] = {**VALUES, "least": CLOSED, "most": {**VALUES["eks"], **MORE}}
"""Values to try: those beside the chart, the least, and with all that is off."""


@cache
def _chart() -> helm.Chart:
    return helm.Chart.load(CHART)


def merged(*values: Json) -> Json:
    """Values over values, as Helm lays one file over another."""
    result: Json = {}
    for one in values:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def render(*values: Json) -> list[Json]:
    """The objects that the values make. Raises `helm.HelmError`."""
    templates = _chart().render(merged(*values), name="cortex", namespace=NAMESPACE)
    texts = [text for path, text in sorted(templates.items()) if not path.endswith("NOTES.txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def objects(rendered: list[Json], kind: str) -> dict[str, Json]:
    """Those of a kind, by name."""
    return {one["metadata"]["name"]: one for one in rendered if one["kind"] == kind}


def pods(rendered: list[Json]) -> dict[str, Json]:
    """The pods' specifications, by the name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in rendered
        if one["kind"] in ("Deployment", "StatefulSet")
    }
