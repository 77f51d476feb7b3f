"""Prometheus' text format, read name for name: the library's own parser gives every counter a suffix."""

import re

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

Labels = tuple[tuple[str, str], ...]


def samples(text: str) -> dict[str, dict[Labels, float]]:
    """Values by name and labels, these sorted."""
    found: dict[str, dict[Labels, float]] = {}
    for name, labels, value in SAMPLE.findall(text):
        found.setdefault(name, {})[tuple(sorted(LABEL.findall(labels)))] = float(value)
    return found
