"""How outcomes and histories lie in their tables, both ways."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.scheduler.domain.model.batch import BatchState, History, Outcome

REPLY_BYTES_AT_ONCE = 1024 * 1024
"""Kept replies in one statement, unless a single one is larger."""
FINAL_STATES = (BatchState.FAILED, BatchState.SUCCEEDED, BatchState.SPLIT)
STATE_NUMBERS = {state: number for number, state in enumerate(FINAL_STATES)}
"""How an outcome's state lies in its table."""
HISTORY_COLUMNS = "attempts, losses, epoch, http_status, error, given_up"


def outcome_of(row: Sequence[Any]) -> Outcome:
    """A batch's end, from `batch, state, attempts, http_status, error, ended_ns`."""
    index, state, attempts, http_status, error, ended_ns = row
    return Outcome(index, FINAL_STATES[state], attempts, http_status, error, ended_ns)


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """batch, state, attempts, http_status, error, ended_ns."""
    return [(o.index, STATE_NUMBERS[o.state], o.attempts, o.http_status, o.error, o.ended_ns) for o in outcomes]


def reply_chunks(outcomes: Sequence[Outcome]) -> list[list[tuple[int, bytes]]]:
    """batch, bytes: kept replies, in chunks to be written by one statement each. SQLite copies what is bound to it."""
    chunks: list[list[tuple[int, bytes]]] = []
    room = 0
    for outcome in outcomes:
        if outcome.reply is None:
            continue
        room -= len(outcome.reply)
        if room < 0 or not chunks:
            chunks.append([])
            room = REPLY_BYTES_AT_ONCE - len(outcome.reply)
        chunks[-1].append((outcome.index, outcome.reply))
    return chunks


def history_rows(histories: Mapping[int, History]) -> list[tuple[Any, ...]]:
    """batch, HISTORY_COLUMNS."""
    return [
        (index, h.attempts, h.losses, h.epoch, h.http_status, h.error, h.given_up) for index, h in histories.items()
    ]


def history_of(row: Sequence[Any]) -> History:
    """From HISTORY_COLUMNS."""
    attempts, losses, epoch, http_status, error, given_up = row
    return History(attempts, losses, epoch, http_status, error, bool(given_up))
