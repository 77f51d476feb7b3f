"""A job in progress: a live bar in a terminal, a line a second elsewhere, and one line about its end."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cortex.cli.views import words

Json = dict[str, Any]

PLAIN_INTERVAL_S = 1.0


class Waiting:
    """Tells what holds a job up, once for each reason: the server gives one when there is need to worry."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = ""

    def tell(self, state: Json) -> None:
        """A line when there is a new reason."""
        reason = state.get("reason", "")
        if reason and reason != self._told and not state.get("end_time"):
            self._console.print(f"waiting: {reason}", soft_wrap=True)
            self._told = reason


def follow(console: Console, updates: Iterator[Json]) -> Json:
    """Show the job until the updates end, and return the last."""
    live = console.is_terminal and not console.is_dumb_terminal  # a dumb one cannot go back in its line
    return _follow_live(console, updates) if live else _follow_plain(console, updates)


def _follow_live(console: Console, updates: Iterator[Json]) -> Json:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[facts]}"),
        console=console,
        transient=True,
        expand=True,
    )
    last: Json = {}
    waiting = Waiting(console)
    with bar:
        task: TaskID | None = None
        for last in updates:
            state = last["job_status"]
            done, total = _done(state), state.get("total_batch_count")
            text = facts(state, roomy=console.width >= 100)
            label = f"[{words.style_of(state['status'])}]{words.status(state)}[/]"
            if task is None:
                task = bar.add_task(label, total=total, completed=done, facts=text)
            bar.update(task, description=label, total=total, completed=done, facts=text)
            waiting.tell(state)
    return last


def _follow_plain(console: Console, updates: Iterator[Json]) -> Json:
    """A line when something changed, at most one a second.

    The updates are read by a thread of its own, so that the last of several in one second is shown when it is over,
    and not when the next one comes.
    """
    incoming: queue.SimpleQueue[Json | BaseException | None] = queue.SimpleQueue()
    threading.Thread(target=_pour, args=(updates, incoming), daemon=True).start()
    last: Json = {}
    shown, due = "", 0.0
    waiting = Waiting(console)
    while True:
        late = bool(last) and _line(last) != shown
        try:
            update = incoming.get(timeout=max(0.0, due - time.monotonic()) if late else None)
        except queue.Empty:
            update = last
        if update is None:
            return last
        if isinstance(update, BaseException):
            raise update
        last = update
        line = _line(last)
        if line != shown and time.monotonic() >= due and not last["job_status"].get("end_time"):
            console.print(line, soft_wrap=True)
            shown, due = line, time.monotonic() + PLAIN_INTERVAL_S
        waiting.tell(last["job_status"])


def _pour(updates: Iterator[Json], into: "queue.SimpleQueue[Json | BaseException | None]") -> None:
    try:
        for update in updates:
            into.put(update)
        into.put(None)
    except BaseException as error:  # noqa: BLE001  # raised again where the updates are wanted
        into.put(error)


def _line(job: Json) -> str:
    state = job["job_status"]
    return f"{words.status(state)}: {facts(state, roomy=True)}"


def facts(state: Json, *, roomy: bool) -> str:
    """Such as `120/1,000 batches, 2 failed, 35/s, 0:25 left, 2/2 workers ready`."""
    counts, total = state["batch_counts"], state.get("total_batch_count")
    told = [f"{_done(state):,}/{'?' if total is None else f'{total:,}'}" + (" batches" if roomy else "")]
    if counts["failed"]:
        told.append(f"{counts['failed']:,} failed")
    told += words.speed(state)
    ready = (state.get("worker_counts") or {}).get("ready", 0)
    told.append(f"{ready}/{state['workers']} workers ready" if roomy else f"{ready}/{state['workers']} ready")
    return ", ".join(told)


def _done(state: Json) -> int:
    return int(state["batch_counts"]["succeeded"] + state["batch_counts"]["failed"])


def print_end(console: Console, job: Json) -> None:
    """How a job ended: its status, how long it took, its counts, and why."""
    from rich.text import Text

    state = job["job_status"]
    counts, total = state["batch_counts"], state.get("total_batch_count")
    line = Text(state["status"], style=f"bold {words.style_of(state['status'])}")
    line.append(f" after {words.duration(words.took(state))}: ", style="default not bold")
    of = "" if total in (None, counts["succeeded"]) else f" of {total:,}"
    batches = f"{counts['succeeded']:,}{of} batches" if of else words.batches(counts["succeeded"])
    told = f"{batches} succeeded, {counts['failed']:,} failed"
    line.append(told, style="default not bold")
    console.print(line, soft_wrap=True)
    if state.get("reason"):
        console.print(f"reason: {state['reason']}", soft_wrap=True)
