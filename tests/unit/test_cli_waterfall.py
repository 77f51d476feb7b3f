"""The waterfall: order, collapsing, widths, and that it reads without colour."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cortex.cli.views.waterfall import SHOWN_ALIKE, Row, Span, print_trace, rows

MS = 1_000_000


def told(span_id: str, name: str, start: float, end: float, parent: str = "", **more: Any) -> dict[str, Any]:
    """A span as the server tells it; times in milliseconds."""
    return {
        "span_id": span_id,
        "parent_span_id": parent,
        "name": name,
        "service": "cortex-scheduler",
        "start_unix_nano": round(start * MS),
        "end_unix_nano": round(end * MS),
        "attributes": {},
        "error": False,
        "status_message": "",
        **more,
    }


def drawn(spans: list[dict[str, Any]]) -> list[Row]:
    return list(rows([Span.of(span) for span in spans]))


def text(spans: list[dict[str, Any]], width: int) -> list[str]:
    out = io.StringIO()
    trace = {"trace_id": "t", "spans": spans, "dropped_spans": 0}
    print_trace(Console(file=out, width=1000, highlight=False, markup=False), trace, width)
    return out.getvalue().splitlines()


def test_children_stand_below_their_parents_in_the_order_of_their_start() -> None:
    spans = [
        told("c", "late", 5, 6, "a"),
        told("d", "inner", 2, 3, "b"),
        told("b", "early", 1, 4, "a"),
        told("a", "root", 0, 9),
    ]
    assert [(row.depth, row.label) for row in drawn(spans)] == [(0, "root"), (1, "early"), (2, "inner"), (1, "late")]


def test_a_span_whose_parent_is_not_known_stands_at_the_top() -> None:
    assert [row.depth for row in drawn([told("a", "orphan", 0, 1, "gone")])] == [0]


def test_spans_are_told_apart_by_their_batch_or_worker() -> None:
    attributes = {"cortex.batch": 7, "cortex.worker": 1}
    spans = [told(name, name, 0, 1, attributes=attributes) for name in ("deliver batch", "start worker")]
    assert {row.label for row in drawn(spans)} == {"deliver batch 7", "start worker 1"}


def test_of_many_alike_the_first_and_the_failed_are_drawn() -> None:
    spans = [told("a", "job", 0, 1000)]
    for number in range(100):
        failed = {"error": True, "status_message": "status 500"} if number == 70 else {}
        attributes = {"cortex.batch": number}
        spans.append(told(f"b{number}", "batch", number, number + 5, "a", attributes=attributes, **failed))
        spans.append(told(f"d{number}", "deliver", number, number + 4, f"b{number}"))
    shown = drawn(spans)
    labels = [row.label for row in shown]
    assert [label for label in labels if label.startswith("batch")] == [f"batch {n}" for n in [*range(SHOWN_ALIKE), 70]]
    others = next(row for row in shown if row.label.startswith("…"))
    assert (others.label, others.start, others.end) == ("… 96 more of `batch`", SHOWN_ALIKE * MS, 104 * MS)
    assert len(shown) == 1 + (SHOWN_ALIKE + 1) * 2 + 1  # what is left out takes its children with it


def test_failures_that_are_not_drawn_are_counted() -> None:
    spans = [told(str(n), "batch", n, n + 1, error=True) for n in range(100)]
    assert drawn(spans)[-1].label == "… 94 more of `batch`, 94 of them failed"


def test_one_more_than_are_drawn_is_drawn_too() -> None:
    assert len(drawn([told(str(n), "batch", n, n + 1) for n in range(SHOWN_ALIKE + 1)])) == SHOWN_ALIKE + 1


def test_a_chain_deeper_than_the_stack_is_drawn() -> None:
    spans = [told(str(n), "step", n, n + 1, str(n - 1) if n else "") for n in range(3000)]
    assert len(drawn(spans)) == 3000


def test_spans_that_are_each_others_parents_do_no_harm() -> None:
    assert drawn([told("a", "one", 0, 1, "b"), told("b", "two", 0, 1, "a")]) == []


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_line_fits_the_width(width: int) -> None:
    spans = [told("a", "a name that is far too long for most terminals " * 2, 0, 90)]
    spans += [told(str(n), "höhe 語" * n, n, n + 1, str(n - 1) if n > 1 else "a") for n in range(1, 12)]
    lines = text(spans, width)[2:]
    assert max(cell_len(line.rstrip()) for line in lines) == width
    assert all(cell_len(line) <= width for line in lines)


def test_bars_stand_on_one_axis_and_the_shortest_leaves_a_mark() -> None:
    lines = text(
        [told("a", "whole", 0, 100), told("b", "half", 50, 100, "a"), told("c", "speck", 99.999, 100, "a")], 80
    )
    header, whole, half, speck = lines[2:]
    start = whole.index("█")
    length = whole.count("█")
    assert header.index("0") == start
    assert half.index("█") == start + length // 2
    assert speck.index("▏") == start + length - 1
    assert whole.endswith("100 ms")
    assert speck.endswith("0.001 ms")


def test_what_failed_reads_without_colour() -> None:
    lines = text([told("a", "deliver", 0, 1, error=True, status_message="the container answered 500")], 80)
    assert lines[0] == "trace t: 1 span, 1 ms, 1 failed"
    assert "✗ deliver" in lines[3]
    assert lines[4].strip() == "the container answered 500"


def test_a_trace_without_spans_is_told() -> None:
    assert text([], 80) == ["trace t has no spans yet"]
