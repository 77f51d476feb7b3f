"""A trace as a waterfall: a line a span, children below their parents, bars on one time axis.

    SERVICE    SPAN                      0              40 ms        80 ms       TOOK
    gateway    POST /batch/{api_name}    ██▌                                   6.1 ms
    scheduler    SubmitJob                █▌                                   3.9 ms
    dequeuer     deliver batch 0            ▏                                  1.2 ms
    dequeuer     … 90 more of `deliver batch` ███████████████████             74.0 ms
    dequeuer     ✗ deliver batch 17                 ██                         4.0 ms
                   the container answered 500

Of many siblings with one name only the first few are drawn, and those that failed; a line stands for the others. So a
job of thousands of batches stays readable. Failed spans carry a cross, because colour may be missing.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from cortex.cli.views import words

SHOWN_ALIKE = 3
"""Siblings of one name that are drawn; as many more when they failed."""

NUMBERED_BY = {"start worker": "cortex.worker"}
"""The attribute that tells a span of this name from others; of other names it is the batch's index."""

SERVICE_STYLES = {"gateway": "blue", "scheduler": "magenta", "dequeuer": "green"}
DURATION_WIDTH = 9
MIN_BAR_WIDTH = 12


@dataclass(frozen=True)
class Span:
    """What is drawn of a span. Times are nanoseconds."""

    span_id: str
    parent_id: str
    name: str
    service: str
    start: int
    end: int
    error: bool
    message: str

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Span":
        """From the server's JSON."""
        name = told["name"]
        number = told["attributes"].get(NUMBERED_BY.get(name, "cortex.batch"))
        return cls(
            told["span_id"],
            told["parent_span_id"],
            name if number is None or name[-1:].isdigit() else f"{name} {number}",
            told["service"].removeprefix("cortex-"),
            told["start_unix_nano"],
            max(told["end_unix_nano"], told["start_unix_nano"]),
            told["error"],
            told["status_message"],
        )

    @property
    def alike(self) -> tuple[str, str]:
        """What siblings that are drawn as one have in common."""
        return self.service, self.name.rstrip("0123456789 ")


@dataclass(frozen=True)
class Row:
    """One line: a span, or a line that stands for several."""

    depth: int
    service: str
    label: str
    start: int
    end: int
    error: bool = False
    message: str = ""


def rows(spans: Sequence[Span]) -> Iterator[Row]:
    """Parents before their children, siblings by their start, many alike collapsed."""
    known = {span.span_id for span in spans}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        children[span.parent_id if span.parent_id in known else ""].append(span)
    # A stack and not recursion: a trace may be deeper than Python's stack. Collapsed lines wait on it like spans.
    stack: list[tuple[int, Span | Row]] = [(0, each) for each in reversed(_collapsed(children[""], 0))]
    while stack:
        depth, entry = stack.pop()
        if isinstance(entry, Row):
            yield entry
            continue
        yield Row(depth, entry.service, entry.name, entry.start, entry.end, entry.error, entry.message)
        below = _collapsed(children[entry.span_id], depth + 1)
        stack.extend((depth + 1, each) for each in reversed(below))


def _collapsed(siblings: list[Span], depth: int) -> list[Span | Row]:
    groups: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in siblings:
        groups[span.alike].append(span)
    hidden: dict[tuple[str, str], list[Span]] = {}
    for alike, group in groups.items():
        failed_later = [span for span in group[SHOWN_ALIKE:] if span.error][:SHOWN_ALIKE]
        left_out = [span for span in group[SHOWN_ALIKE:] if span not in failed_later]
        if len(left_out) > 1:  # a line for a single one would save nothing
            hidden[alike] = left_out
    gone = {span.span_id for group in hidden.values() for span in group}
    shown: list[Span | Row] = []
    for span in siblings:
        if span.span_id not in gone:
            shown.append(span)
        elif span is hidden[span.alike][0]:
            group = hidden[span.alike]
            failed = sum(1 for each in group if each.error)
            label = f"… {len(group):,} more of `{span.alike[1]}`" + (f", {failed:,} of them failed" if failed else "")
            shown.append(Row(depth, span.service, label, span.start, max(each.end for each in group), failed > 0))
    return shown


def print_trace(console: Console, trace: dict[str, Any], width: int) -> None:
    """Draw a trace as wide as `width` columns."""
    spans = [Span.of(told) for told in trace["spans"]]
    if not spans:
        console.print(f"trace {trace['trace_id']} has no spans yet")
        return
    drawn = list(rows(spans))
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    failed = sum(1 for span in spans if span.error)
    summary = f"trace {trace['trace_id']}: {words.count(len(spans), 'span')}, {words.duration((end - start) / 1e9)}"
    console.print(summary + (f", {failed:,} failed" if failed else ""), soft_wrap=True)
    if trace.get("dropped_spans"):
        console.print(f"{words.count(trace['dropped_spans'], 'span')} more were not kept", soft_wrap=True)
    console.print()
    layout = _Layout.of(drawn, width)
    console.print(layout.header(end - start), no_wrap=True, crop=False)
    for row in drawn:
        console.print(layout.line(row, start, max(end - start, 1)), no_wrap=True, crop=False)
        if row.message:
            indent = layout.service + 2 + 2 * row.depth + 2
            console.print(
                Text(" " * indent + row.message.replace("\n", " "), style="red"), overflow="ellipsis", no_wrap=True
            )


@dataclass(frozen=True)
class _Layout:
    """Widths of the columns; two spaces stand between them."""

    service: int
    label: int
    bar: int

    @classmethod
    def of(cls, drawn: Sequence[Row], width: int) -> "_Layout":
        service = max(len("SERVICE"), *(cell_len(row.service) for row in drawn))
        wanted = max(len("SPAN"), *(2 * row.depth + cell_len(row.label) + 2 for row in drawn))
        left = width - service - DURATION_WIDTH - 6
        label = max(10, min(wanted, left * 11 // 20, left - MIN_BAR_WIDTH))
        return cls(service, label, max(MIN_BAR_WIDTH, left - label))

    def header(self, length: int) -> Text:
        """The columns' names and the time axis."""
        middle, end = words.duration(length / 2e9), words.duration(length / 1e9)
        half = self.bar // 2
        axis = set_cell_size("0", half) + middle
        axis = set_cell_size(axis, self.bar - cell_len(end)) + end if self.bar >= 24 else set_cell_size("0", self.bar)
        text = f"{set_cell_size('SERVICE', self.service)}  {set_cell_size('SPAN', self.label)}  {axis}  {'TOOK':>9}"
        return Text(text, style="bold")

    def line(self, row: Row, start: int, length: int) -> Text:
        """One row."""
        colour = "red" if row.error else SERVICE_STYLES.get(row.service, "cyan")
        mark = "✗ " if row.error else ""
        line = Text(set_cell_size(row.service, self.service) + "  ", style="dim" if not row.error else "red")
        line.append(
            _fit("  " * row.depth + mark + row.label, self.label) + "  ", style="red" if row.error else "not dim"
        )
        line.append(_bar(row.start - start, row.end - start, length, self.bar) + "  ", style=f"not dim {colour}")
        line.append(words.duration((row.end - row.start) / 1e9).rjust(DURATION_WIDTH), style="not dim default")
        return line


def _fit(text: str, width: int) -> str:
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _bar(start: int, end: int, length: int, width: int) -> str:
    """A bar that begins in its column and is exact to an eighth in its length; the shortest span still has a mark."""
    eighths = max(1, round((end - start) * 8 * width / length))
    whole, part = divmod(min(eighths, 8 * width), 8)
    columns = whole + (part > 0)
    lead = min(start * width // length, width - columns)
    return set_cell_size(" " * lead + "█" * whole + " ▏▎▍▌▋▊▉"[part].strip(), width)
