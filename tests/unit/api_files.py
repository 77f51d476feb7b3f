"""A configuration file to vary."""

import copy
from typing import Any

import yaml

from services.scheduler.domain.api_config import parse_api_file
from services.scheduler.domain.api_config.model import ApiConfig

REMOVED = object()

SMALLEST: list[dict[str, Any]] = [
    {
        "name": "hello-world",
        "kind": "BatchAPI",
        "pod": {"containers": [{"name": "api", "image": "hello", "command": ["python", "app.py"]}]},
    }
]


def changed(path: str, value: object) -> list[dict[str, Any]]:
    """SMALLEST with one value set, such as at `0.pod.port`, or removed."""
    document = copy.deepcopy(SMALLEST)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = document
    for step in way:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    if value is REMOVED:
        del at[last]
    elif isinstance(last, int) and last == len(at):
        at.append(value)
    else:
        at[last] = value
    return document


def parse(document: object) -> list[ApiConfig]:
    return parse_api_file("hello.yaml", yaml.safe_dump(document, sort_keys=False).encode())


CONTAINER = "0.pod.containers.0"
READINESS = f"{CONTAINER}.readiness_probe"
