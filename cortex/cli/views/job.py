"""The description of a job: how it stands, and what was asked for."""

from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from cortex.cli.views import words
from cortex.cli.views.tables import facts, progress, status

Json = dict[str, Any]
Rows = list[tuple[str, RenderableType]]


def print_job(console: Console, job: Json) -> None:
    """`cortex get API JOB`."""
    state = job["job_status"]
    rows = [*_identity(state), *_standing(state, job["metrics"]), *_asked_for(state), ("endpoint", job["endpoint"])]
    console.print(facts(rows))


def _identity(state: Json) -> Rows:
    rows: Rows = [
        ("job", state["job_id"]),
        ("api", f"{state['api_name']} ({state['kind']})"),
        ("api id", state["api_id"]),
        ("status", status(state)),
    ]
    if state.get("reason"):
        rows.append(("reason", Text(state["reason"])))
    related = (("retry of", "retry_of"), ("retried by", "retried_by"))
    return rows + [(name, state[other]) for name, other in related if state.get(other)]


def _standing(state: Json, metrics: Json) -> Rows:
    counts = ", ".join(f"{n:,} {name}" for name, n in state["batch_counts"].items())
    rows: Rows = [("batches", Text(f"{progress(state)} done: {counts}"))]
    if speed := words.speed(state):
        rows.append(("speed", ", ".join(speed)))
    rows += [
        ("attempts", f"{metrics['succeeded']:,} succeeded, {metrics['failed']:,} failed{_average(metrics)}"),
        ("workers", f"{state['workers']:,}{_scaling(state)}{_workers(state)}"),
        ("started", words.ago(words.moment(state["created_time"]))),
        ("took" if state.get("end_time") else "so far", words.duration(words.took(state))),
    ]
    return rows


def _average(metrics: Json) -> str:
    average = metrics["average_time_per_batch"]
    return "" if average is None else f", {words.duration(average)} on average"


def _scaling(state: Json) -> str:
    scaling = state.get("worker_scaling")
    if not scaling:
        return ""
    each = words.batches(scaling["batches_per_worker"])
    return f", one for each {each}, {scaling['max_workers']:,} at most"


def _workers(state: Json) -> str:
    counts = state.get("worker_counts") or {}
    told = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items())
    return f" ({told})" if told else ""


def _asked_for(state: Json) -> Rows:
    told = {
        "timeout": _seconds(state.get("timeout")),
        "batch timeout": _seconds(state.get("batch_timeout")),
        "retries": _retries(state.get("retries")),
        "split": "a batch that keeps failing is halved" if state.get("split_failed") else "",
        "failed limit": _failed_limit(state.get("max_failed_percent")),
        "queue": str(state.get("queue_name") or ""),
        "dead letters": _dead_letters(state.get("sqs_dead_letter_queue")),
        "results": _results(state.get("results")),
        "webhook": _webhook(state.get("webhook"), over=bool(state.get("end_time"))),
    }
    return [(name, Text(text)) for name, text in told.items() if text]


def _seconds(limit: float | None) -> str:
    return words.duration(limit) if limit else ""


def _retries(policy: Json | None) -> str:
    if not policy:
        return ""
    told = f"{words.count(policy['max_attempts'], 'attempt')} at most"
    if "backoff_seconds" in policy:
        told += f", {policy['backoff_seconds']:g} to {policy['max_backoff_seconds']:g} s apart"
    statuses = ", ".join(map(str, policy.get("on") or ()))
    return f"{told}, after {statuses} or no answer" if statuses else told


def _failed_limit(percent: float | None) -> str:
    return "" if percent is None else f"the job stops when more than {percent:g}% of its batches failed"


def _dead_letters(queue: Json | None) -> str:
    return f"{queue['arn']} after {words.count(queue['max_receive_count'], 'attempt')}" if queue else ""


def _results(results: bool | Json | None) -> str:
    if not results:
        return ""
    return "kept" if results is True else f"kept, and written to {results['s3_path']}"


def _webhook(webhook: Json | None, *, over: bool) -> str:
    """Where it goes, and once the job is over what became of it."""
    if not webhook or not over:
        return webhook["url"] if webhook else ""
    if webhook.get("delivered_time"):
        return f"{webhook['url']}, told {words.ago(words.moment(webhook['delivered_time']))}"
    attempts = words.count(webhook.get("attempts", 0), "attempt")
    error = f": {webhook['error']}" if webhook.get("error") else ""
    return f"{webhook['url']}, not told yet after {attempts}{error}"
