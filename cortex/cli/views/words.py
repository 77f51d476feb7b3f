"""Numbers, times and statuses as words."""

from datetime import UTC, datetime
from typing import Any

STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "enqueuing": "cyan",
    "pending": "cyan",
    "completed_with_failures": "yellow",
    "stopped": "yellow",
    "unknown": "yellow",
}


def style_of(status: str) -> str:
    """The colour of a job's status."""
    return STYLES.get(status, "red")


def status(job: dict[str, Any]) -> str:
    """A job's status, and that it is paused."""
    return f"{job['status']} (paused)" if job.get("paused") and not job.get("end_time") else str(job["status"])


def clock(seconds: float) -> str:
    """Such as `0:05`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def speed(job: dict[str, Any]) -> list[str]:
    """How fast a job is and how long it takes on, as far as that is known: such as `35/s`, `0:25 left`."""
    progress = {} if job.get("paused") else job.get("progress") or {}
    rate, left = progress.get("batches_per_second") or 0.0, progress.get("eta_seconds")
    told = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"] if rate >= 0.05 else []
    return told if left is None else [*told, f"{clock(left)} left"]


def duration(seconds: float) -> str:
    """Such as `0 ms`, `350 ms`, `4.2 s`, `1m 05s`, `2h 03m`, `4d 01h`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def ago(when: datetime) -> str:
    """Such as `5 s ago`."""
    seconds = max(0, round((datetime.now(UTC) - when).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def moment(text: str) -> datetime:
    """An RFC 3339 time."""
    return datetime.fromisoformat(text)


def took(status: dict[str, Any]) -> float:
    """Seconds from a job's submission to its end, or to now."""
    end = moment(status["end_time"]) if status.get("end_time") else datetime.now(UTC)
    return max(0.0, (end - moment(status["created_time"])).total_seconds())


def count(number: int, noun: str, plural: str = "") -> str:
    """Such as `1 batch`, `2,000 batches`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def batches(number: int) -> str:
    """Such as `1 batch`, `2,000 batches`."""
    return count(number, "batch", "batches")
