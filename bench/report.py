"""Figures as a table for people, or as JSON."""

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.references import PEERS, REFERENCES, Reference

WIDTH = 132


@dataclass(frozen=True)
class Figure:
    """One thing that was measured."""

    key: str
    """`BENCHMARK.NAME`; under it `references` says what it is held against."""
    what: str
    value: float
    unit: str

    @property
    def reference(self) -> Reference:
        """What it is held against."""
        return REFERENCES.get(self.key, Reference())

    @property
    def against_bound(self) -> str:
        """Where it stands, such as `1.32x of >= 20,000`."""
        return _against(self.value, self.reference.bound, "≥ " if self.reference.at_least else "≤ ")

    @property
    def against_prototype(self) -> str:
        """The same for the prototype."""
        return _against(self.value, self.reference.prototype, "")


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _against(value: float, other: float | None, sign: str) -> str:
    return "" if other is None else f"{sign}{number(other)}  ({value / other:.2f}x)"


def show(figures: Sequence[Figure]) -> None:
    """Print the tables."""
    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    table = Table(title=f"cortex-batch on {machine()}", title_justify="left")
    for column in ("what", "measured", "bound (ratio)", "prototype (ratio)"):
        table.add_column(column, justify="left" if column == "what" else "right")
    section = ""
    for figure in figures:
        benchmark = figure.key.partition(".")[0]
        if section and section != benchmark:
            table.add_section()
        section = benchmark
        measured = f"{number(figure.value)} {figure.unit}"
        table.add_row(figure.what, measured, figure.against_bound, figure.against_prototype)
    console.print(table)
    rate = next((figure.value for figure in figures if figure.key == "end_to_end.rate"), None)
    if rate is not None:
        console.print(_peers(rate))


def _peers(rate: float) -> Table:
    table = Table(
        title="Others on such work, measured where the prototype was; they do not run here", title_justify="left"
    )
    for column in ("system", "batches/s", "worker CPU-s per 1000", "this system is faster by"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for peer in PEERS:
        table.add_row(peer.name, number(peer.rate), number(peer.cpu), f"{rate / peer.rate:.1f}x")
    return table


def as_json(figures: Iterable[Figure]) -> str:
    """All of it as one JSON object."""
    return json.dumps({"machine": machine(), "figures": [_object(figure) for figure in figures]}, indent=1)


def _object(figure: Figure) -> dict[str, Any]:
    reference = figure.reference
    found: dict[str, Any] = {"key": figure.key, "what": figure.what.strip(), "value": figure.value, "unit": figure.unit}
    if reference.bound is not None:
        found["bound"] = {"value": reference.bound, "at_least": reference.at_least}
    if reference.prototype is not None:
        found["prototype"] = reference.prototype
    return found


def machine() -> str:
    """What it ran on."""
    memory = psutil.virtual_memory().total / (1 << 30)
    return f"{psutil.cpu_count()} CPUs, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
