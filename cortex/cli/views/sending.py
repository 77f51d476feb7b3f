"""Items on their way: a bar on standard error while a job is streamed, where that is a terminal."""

from collections.abc import Generator, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


def shown(pieces: Iterator[bytes], size: int | None) -> Generator[bytes]:
    """The pieces, with a bar of what was sent; `size` in bytes, where it is known."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield from pieces
        return
    lines = 0
    bar = Progress(
        TextColumn("sending"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        expand=True,
    )
    with bar:
        task = bar.add_task("", total=size, lines=0)
        for piece in pieces:
            yield piece
            lines += piece.count(b"\n")
            bar.update(task, advance=len(piece), lines=lines)
